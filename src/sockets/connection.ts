import { randomUUID } from 'node:crypto'
import type { Principal } from '../protocol/principal.js'
import { peerIdOf, Rights } from '../auth/rights.js'
import type { ConnectionSlot } from '../limits/connection-slots.js'
import { FrameRate, type FrameRates } from '../limits/frame-rate.js'
import type { Peer } from '../messaging/peer.js'
import type { ResolvedOptions } from '../options.js'
import type { Dialect } from '../protocol/channel-names.js'
import { closeCodes, v1Code, type ErrorCode } from '../protocol/codes.js'
import { EncodedMessage, fencePing, protocolPing, textPing, textPong, type Encoding } from '../protocol/encoded-message.js'
import type { TierName } from '../protocol/frames/catalogues.js'
import { requestIdOf } from '../protocol/validation.js'
import { InboundFrames, type InboundOwner, type InboundServices } from './inbound.js'
import { OutboundQueue, type Flusher, type QueueOwner, type Traffic, type Transport } from './outbound.js'

/** The part of a tier that a connection depends on. */
export interface ConnectionTier {
  readonly name: TierName
  readonly options: ResolvedOptions['publicWs']
  readonly requiresAuthentication: boolean
}

/** Handles the frames of a tier. */
export interface FrameDispatcher {
  /** Whether the `requestId` of a frame refers to an earlier frame that has no reply yet. */
  namesOpenRequest (frame: unknown): boolean
  /** Handles a frame; undefined is one that is not JSON. @returns a promise if the next frame has to wait */
  dispatch (connection: Connection, frame: unknown): Promise<void> | void
  /** Sends the error that was thrown for a frame. */
  failed (connection: Connection, error: unknown, frame: unknown): void
}

/** What a connection calls outside itself: one object for all connections of a tier. */
export interface ConnectionPorts extends InboundServices {
  readonly flusher: Flusher
  readonly rates: FrameRates
  readonly traffic: Traffic
  readonly dispatcher: FrameDispatcher
  /** Largest number of bytes that may wait for a client. */
  readonly maxBufferedBytes: number
  /** Called once when the socket has closed. @param wasClean whether a close frame was received */
  readonly closed: (connection: Connection, wasClean: boolean) => void
}

export interface ConnectionOptions {
  tier: ConnectionTier
  transport: Transport
  encoding: Encoding
  address: string
  slot: ConnectionSlot
  ports: ConnectionPorts
}

/** Room for the members of a frame beside `data`, to which the size limit of a tier applies. */
const envelopeBytes = 4096
const maxKeepAliveLength = 32

/** One WebSocket connection of any tier. */
export class Connection implements Peer, InboundOwner, QueueOwner {
  readonly id = randomUUID()
  readonly tier: ConnectionTier
  readonly dialect: Dialect
  readonly transport: Transport
  readonly encoding: Encoding
  readonly address: string
  readonly rate: FrameRate
  readonly openedAt: number
  readonly inbound: InboundFrames
  /** Whether the connection takes part in messaging. */
  isPeer = false
  /** Whether activity on the connection does not renew the lease of its agent. */
  observes = false
  /** Whether the client receives deltas instead of lists of agents. */
  isWatching = false
  /** Whether a dashboard has paused monitoring. */
  isPaused = false
  /** Last activity of the client, protocol pings and pongs included (epoch ms). */
  heardAt: number
  /** When the last protocol ping and text ping were sent, and when the next `stats_update` is due (epoch ms). */
  pingedAt = 0
  textPingedAt = 0
  nextStatsAt: number
  /** The expiry time for which `token_expiring` was sent (epoch seconds). */
  expiryNoticeFor = 0
  /** When a close frame was sent (epoch ms). */
  closingAt: number | null = null
  readonly #slot: ConnectionSlot
  readonly #ports: ConnectionPorts
  readonly #outbound: OutboundQueue
  #principal: Principal | null = null
  #rights: Rights | null = null

  constructor ({ tier, transport, encoding, address, slot, ports }: ConnectionOptions) {
    const { messagesPerSecond: perSecond, burst, intervalMs } = tier.options
    this.tier = tier
    this.dialect = tier.name === 'v1' ? 'v1' : 'agents'
    this.transport = transport
    this.encoding = encoding
    this.address = address
    this.#slot = slot
    this.#ports = ports
    this.openedAt = this.heardAt = ports.now()
    this.nextStatsAt = this.openedAt + intervalMs
    this.rate = new FrameRate(ports.rates, { perSecond, burst }, { addressKey: slot.addressKey, now: this.openedAt })
    this.inbound = new InboundFrames(this, ports)
    this.#outbound = new OutboundQueue(this, ports.flusher)
    slot.slots.open(slot)
  }

  get isOpen () { return this.closingAt === null && this.transport.isOpen }
  get principal () { return this.#principal }
  get isAuthenticated () { return !this.tier.requiresAuthentication || this.#principal !== null }
  /** Whether the socket has not drained what was sent in an earlier tick. */
  get isBehind () { return this.#outbound.isBlocked }
  /** Bytes that wait to be sent. */
  get depth () { return this.#outbound.depth }
  get limit () { return this.#ports.maxBufferedBytes }
  get traffic () { return this.#ports.traffic }
  get maxFrameBytes () { return this.tier.options.maxMessageSize + (this.tier.requiresAuthentication ? envelopeBytes : 0) }

  /** The principal of an authenticated connection. */
  get authenticatedPrincipal (): Principal {
    if (this.#principal === null) throw new Error('The connection is not authenticated')
    return this.#principal
  }

  get peerId () { return peerIdOf(this.authenticatedPrincipal) }
  get rights () { return (this.#rights ??= new Rights(this.authenticatedPrincipal)) }

  /** Sets the principal: the first one, or that of a new token. */
  authenticate (principal: Principal): void {
    this.#slot.slots.authenticate(this.#slot)
    this.#principal = principal
    this.#rights = null
    this.rate.setPrincipal(principal)
  }

  handleKeepAlive (text: string): boolean {
    if (text.length > maxKeepAliveLength || this.dialect === 'v1') return false
    const word = text.trim().toLowerCase()
    if (word === 'ping') this.push(textPong)
    return word === 'ping' || word === 'pong'
  }

  namesOpenRequest (frame: unknown): boolean {
    return this.#ports.dispatcher.namesOpenRequest(frame)
  }

  handle (frame: unknown): Promise<void> | void {
    return this.#ports.dispatcher.dispatch(this, frame)
  }

  handlingFailed (error: unknown, frame: unknown): void {
    this.#ports.dispatcher.failed(this, error, frame)
  }

  /** Sends a message to this connection alone. */
  send (text: string): void {
    this.push(new EncodedMessage(text))
  }

  sendFrame (frame: object): void {
    this.send(JSON.stringify(frame))
  }

  /** Sends a message that other connections may receive too; its encodings are shared. */
  push (message: EncodedMessage): void {
    if (this.isOpen) this.#outbound.push(message)
  }

  /** Sends an `ack` with `members`, if the frame has a `requestId`. */
  ack ({ requestId }: { requestId?: string }, members: object = {}): void {
    if (requestId !== undefined) this.sendFrame({ type: 'ack', requestId, ...members })
  }

  pong ({ requestId }: { requestId?: unknown }): void {
    this.sendFrame({ type: 'pong', timestamp: Date.now() / 1000, ...(typeof requestId === 'string' && { requestId }) })
  }

  fail (code: ErrorCode, message: string, frame?: unknown, extras: object = {}): void {
    const requestId = requestIdOf(frame)
    const shownCode = this.dialect === 'v1' ? v1Code(code) : code
    this.sendFrame({ type: 'error', code: shownCode, message, ...(requestId && { requestId }), ...extras })
  }

  /** Sends frames of which only the newest counts. While the connection is behind, the newest of each kind waits. */
  sendLatest (kind: string, make: () => readonly EncodedMessage[]): void {
    if (this.isBehind) this.whenSent(kind, () => { this.sendLatest(kind, make) })
    else for (const message of make()) this.push(message)
  }

  whenSent (kind: string, callback: () => void): void {
    if (this.isOpen) this.#outbound.whenSent(kind, callback)
  }

  ping (now: number): void {
    this.pingedAt = now
    this.push(protocolPing)
  }

  textPing (now: number): void {
    this.textPingedAt = now
    this.push(textPing)
  }

  /**
   * Sends `going_away`, then a ping. Its pong arrives after every frame that the client sent before it received
   * `going_away`.
   */
  announceShutdown (retryAfterMs: number): void {
    this.sendFrame({ type: 'going_away', retryAfterMs })
    this.push(fencePing)
  }

  /** @param reason at most 123 bytes */
  close (code: number, reason: string): void {
    if (!this.isOpen) return
    this.closingAt = this.#ports.now()
    this.inbound.clear()
    // The client's close frame has to be read even if a frame is being handled.
    this.transport.resume()
    this.#outbound.close(code, reason, code === closeCodes.slowConsumer)
  }

  closeSlow (): void {
    if (this.isOpen) this.traffic.slowCloses++
    this.close(closeCodes.slowConsumer, 'Slow consumer')
  }

  /** The socket has closed. @param wasClean whether a close frame was received */
  closed (wasClean: boolean): void {
    this.#slot.slots.release(this.#slot)
    this.rate.leave()
    this.#ports.closed(this, wasClean)
  }
}
