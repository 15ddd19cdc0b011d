import { randomUUID } from 'node:crypto'
import type { Principal } from '../protocol/principal.js'
import { closeCodes, type ErrorCode, v1Code } from '../protocol/codes.js'
import type { Peer } from '../messaging/peer.js'
import type { Dialect } from '../protocol/channel-names.js'
import { peerIdOf, Rights } from '../auth/rights.js'
import { FrameRate } from '../limits/frame-rate.js'
import { Inbox } from './inbox.js'
import { unpack } from '../protocol/message-pack.js'
import { OutboundQueue, type Transport } from './outbound.js'
import { fencePing, EncodedMessage, protocolPing, textPing, textPong, type Encoding } from '../protocol/encoded-message.js'
import { isKeepAliveFrame, parse, requestIdOf, type Frame } from '../protocol/parse.js'
import type { ConnectionSlot } from '../limits/connection-slots.js'
import type { SocketServices } from './services.js'
import type { Tier } from './tiers.js'
import type { Watcher } from './watcher.js'

/** Room for the members around the `data` that a size limit is about. */
const envelopeBytes = 4096

export interface ConnectionOptions { tier: Tier, transport: Transport, encoding: Encoding, address: string, slot: ConnectionSlot, services: SocketServices }

/** One socket of any tier. */
export class Connection implements Peer {
  readonly id = randomUUID()
  readonly tier: Tier
  readonly address: string
  readonly slot: ConnectionSlot
  readonly rate: FrameRate
  readonly transport: Transport
  readonly encoding: Encoding
  readonly openedAt: number
  principal: Principal | null = null
  /** It takes part in messaging. */
  isPeer = false
  readonly dialect: Dialect
  /** Does not renew its agent's lease. */
  observes = false
  watcher: Watcher | null = null
  /** A dashboard that wants no monitoring for a while. */
  isPaused = false
  /** Last sign of life, last frame that the client sent by itself, and last one that was more than a ping or a pong. */
  heardAt: number
  framedAt: number
  usedAt: number
  pingedAt = 0
  textPingedAt = 0
  nextStatsAt: number
  expiryToldFor = 0
  /** When a close frame was sent. */
  closingAt: number | null = null
  /** It is to take no more frames than those that were sent before the client knew that the server goes. */
  #isRetired = false
  /** These have come. */
  #isFenced = false
  readonly #inbox: Inbox
  readonly #outbound: OutboundQueue
  readonly #services: SocketServices
  #rights: Rights | null = null

  constructor ({ tier, transport, encoding, address, slot, services }: ConnectionOptions) {
    this.tier = tier
    this.dialect = tier.name === 'v1' ? 'v1' : 'agents'
    this.transport = transport
    this.encoding = encoding
    this.address = address
    this.slot = slot
    this.#services = services
    this.openedAt = this.heardAt = this.framedAt = this.usedAt = services.now()
    this.nextStatsAt = this.openedAt + tier.options.intervalMs
    this.rate = new FrameRate(services.rates, { perSecond: tier.options.messagesPerSecond, burst: tier.options.burst }, { addressKey: slot.addressKey, now: this.openedAt })
    this.#inbox = new Inbox(this, services)
    this.#outbound = new OutboundQueue(this, services.flusher)
  }

  get isOpen () { return this.closingAt === null && this.transport.isOpen }
  get isAuthenticated () { return this.tier.handshake === null || this.principal !== null }
  /** Whose token it has: only on a connection that is somebody's. */
  get bearer () { return this.principal! }
  get peerId () { return peerIdOf(this.bearer) }
  get rights () { return (this.#rights ??= new Rights(this.bearer)) }
  /** It has not taken yet what was sent in an earlier tick. */
  get isBehind () { return this.#outbound.isBlocked }
  /** Bytes that wait to be sent. */
  get depth () { return this.#outbound.depth }
  /** All that the client sent before it heard that the server goes has its answer. */
  get isSettled () { return this.#isFenced && this.#inbox.isSettled }

  get maxFrameBytes () {
    return this.tier.options.maxMessageSize + (this.tier.handshake ? envelopeBytes : 0)
  }

  /** A message from the client. */
  receive (data: Buffer, isBinary: boolean): void {
    if (!this.isOpen || (this.#isRetired && this.#isFenced)) return
    const now = this.#services.now()
    this.framedAt = now
    this.#counted(data.length)
    this.heard(now)
    const retryAfterMs = this.rate.take(now)
    if (retryAfterMs > 0) return this.#limit(data, isBinary, retryAfterMs)
    if (!this.#takes(isBinary)) return this.fail('unsupported_encoding', 'Frames are JSON text here')
    if (data.length > this.maxFrameBytes) return this.fail('message_too_large', `Frames of this tier have at most ${this.maxFrameBytes} bytes`)
    if (isBinary) return this.#take(unpacked(data), data.length)
    const text = data.toString()
    if (!this.#isKeepAlive(text)) this.#take(parse(text), data.length)
  }

  /** A protocol ping. ws answers it by itself, so that too many are not refused but read later. */
  pinged (): void {
    const now = this.#services.now()
    this.heard(now)
    if (this.rate.take(now) > 0) this.#restrain()
  }

  /** A protocol pong, also one that nobody asked for. */
  ponged (data: Buffer): void {
    if (data.length > 0) this.#isFenced = true
    this.pinged()
  }

  /** Reads on, unless something else has to come first. */
  readOn (): void {
    if (!this.#inbox.isBusy && !this.#services.throttle.has(this)) this.transport.resume()
  }

  /** A sign of life of any kind, protocol pongs included. */
  heard (now: number): void {
    this.heardAt = now
    this.#services.liveness.heard(this)
  }

  /** The connection has another token. */
  renew (principal: Principal): void {
    this.principal = principal
    this.#rights = null
  }

  /** The socket has ended. @param wasClean a close frame came: nothing broke */
  gone (wasClean: boolean): void {
    this.#services.hub.remove(this, wasClean)
  }

  /** Says something to this connection alone. */
  send (text: string): void {
    this.push(new EncodedMessage(text))
  }

  sendFrame (frame: object): void {
    this.send(JSON.stringify(frame))
  }

  /** Sends what others may get too, so that it is made once. */
  push (message: EncodedMessage): void {
    if (this.isOpen) this.#outbound.push(message)
  }

  ping (now: number): void {
    this.pingedAt = now
    this.push(protocolPing)
  }

  /** Tells the client when to come back. Its answer to the ping follows all that it sent before it knew. */
  announceEnd (retryAfterMs: number): void {
    this.sendFrame({ type: 'going_away', retryAfterMs })
    this.push(fencePing)
  }

  /** Its time has come: what the client sends from now on is not taken. */
  retire (): void {
    this.#isRetired = true
  }

  textPing (now: number): void {
    this.textPingedAt = now
    this.push(textPing)
  }

  /** Says what became of a frame: only to those who asked. */
  ack ({ requestId }: { requestId?: string }, outcome: object = {}): void {
    if (requestId !== undefined) this.sendFrame({ type: 'ack', requestId, ...outcome })
  }

  fail (code: ErrorCode, message: string, frame?: unknown, extras: object = {}): void {
    const requestId = requestIdOf(frame)
    this.sendFrame({ type: 'error', code: this.dialect === 'v1' ? v1Code(code) : code, message, ...(requestId && { requestId }), ...extras })
  }

  /** Sends frames of which only the newest count: while the connection is behind, the newest of a kind waits for it. */
  sendLatest (kind: string, make: () => readonly EncodedMessage[]): void {
    if (this.isBehind) this.whenSent(kind, () => { this.sendLatest(kind, make) })
    else for (const message of make()) this.push(message)
  }

  /** Calls back once what was sent so far has left; of a kind only the last counts. */
  whenSent (kind: string, go: () => void): void {
    if (this.isOpen) this.#outbound.whenSent(kind, go)
  }

  /** @param reason at most 123 bytes */
  close (code: number, reason: string): void {
    if (!this.isOpen) return
    this.closingAt = this.#services.now()
    this.#inbox.clear()
    // The answer to the close frame has to be read, also while another frame is being handled.
    this.transport.resume()
    this.#outbound.close(code, reason, code === closeCodes.slowConsumer)
  }

  /** Keeps a frame that came before the token. @returns whether there was room */
  hold (frame: Frame): boolean {
    return this.#inbox.hold(frame)
  }

  /** Puts what was held before all that came after it. */
  releaseHeld (): void {
    this.#inbox.releaseHeld()
  }

  get limit () { return this.#services.options.sockets.maxBufferedBytes }
  get traffic () { return this.#services.traffic[this.tier.name] }

  #counted (bytes: number) {
    this.traffic.framesIn++
    this.traffic.bytesIn += bytes
  }

  /** It reads more slowly than may be. */
  closeSlow (): void {
    if (this.isOpen) this.traffic.slowCloses++
    this.close(closeCodes.slowConsumer, 'Slow consumer')
  }

  #takes (isBinary: boolean) {
    return !isBinary || this.encoding === 'msgpack'
  }

  #take (frame: unknown, bytes: number) {
    if (!isKeepAliveFrame(frame)) this.usedAt = this.framedAt
    this.#inbox.add(frame, bytes)
  }

  /** It sends too much. */
  #restrain () {
    this.traffic.limited++
    if (this.rate.isAbuse) this.close(closeCodes.tooManyMessages, 'Too many messages')
    else if (this.rate.isFlood) this.#services.throttle.add(this)
  }

  /** The frame is not acted on: there are too many. */
  #limit (data: Buffer, isBinary: boolean, retryAfterMs: number) {
    this.#restrain()
    if (!this.isOpen) return
    const isReadable = this.#takes(isBinary) && data.length <= this.maxFrameBytes
    const frame = isReadable ? isBinary ? unpacked(data) : parse(data.toString()) : undefined
    this.fail('rate_limited', 'Too many messages', frame, { retryAfterMs })
  }

  #isKeepAlive (text: string): boolean {
    if (text.length > 32 || this.dialect === 'v1') return false
    const word = text.trim().toLowerCase()
    if (word === 'ping') this.push(textPong)
    return word === 'ping' || word === 'pong'
  }
}

/** What is no MessagePack is as wrong as text that is not JSON. */
function unpacked (data: Buffer): unknown {
  try {
    return unpack(data)
  } catch {
    return undefined
  }
}
