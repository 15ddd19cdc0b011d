import { randomUUID } from 'node:crypto'
import sjson from 'secure-json-parse'
import { isProblem } from '../errors.js'
import { jittered } from '../jitter.js'
import { fieldErrors } from '../validation.js'
import type { Principal } from '../auth/principal.js'
import type { ErrorCode } from './codes.js'
import { closeCodes } from './codes.js'
import { reportRefusal } from './refusals.js'
import type { SocketServices } from './services.js'
import type { Tier } from './tiers.js'
import { TokenBucket } from '../token-bucket.js'
import type { Transport } from './transport.js'
import type { Watcher } from './watcher.js'

export interface Frame { type: string, requestId?: string, [member: string]: unknown }

/** Room for the members around the `data` that a size limit is about. */
const envelopeBytes = 4096
const maxQueued = 1000
const maxHeld = 64
const abuseMs = 10_000
/** Silence of the limiter after which a connection that was over it has a clean sheet. */
const forgivenMs = 1000
const storageRetryMs = 2000
const maxRequestId = 128

const problemCodes: Record<string, ErrorCode> = {
  'agent-not-found': 'agent_offline',
  'stale-incarnation': 'action_not_permitted',
  'insufficient-permissions': 'action_not_permitted',
  'storage-unavailable': 'storage_unavailable'
}

/**
 * One socket of any tier. Frames are handled one at a time and in the order they came; while one waits for something
 * the socket is not read.
 */
export class Connection {
  readonly id = randomUUID()
  readonly tier: Tier
  readonly address: string
  readonly transport: Transport
  readonly openedAt: number
  principal: Principal | null = null
  /** Does not renew its agent's lease. */
  observes = false
  watcher: Watcher | null = null
  /** A dashboard that wants no monitoring for a while. */
  isPaused = false
  /** Last sign of life, and last frame that the client sent by itself. */
  heardAt: number
  framedAt: number
  pingedAt = 0
  textPingedAt = 0
  nextStatsAt: number
  expiryToldFor = 0
  /** When a close frame was sent. */
  closingAt: number | null = null
  #closing = false
  /** Parsed frames that wait for their turn; undefined stands for one that is not JSON. */
  #queue: unknown[] = []
  /** Frames that came before the token, for after it. */
  #held: Frame[] = []
  /** requestIds that wait for their answer. */
  readonly #open = new Set<string>()
  #busy = false
  #limitedSince = 0
  #limitedAt = -Infinity
  /** Kinds of frames that are on their way, and what is to follow them. */
  readonly #onTheWay = new Map<string, (() => readonly string[]) | null>()
  readonly #bucket: TokenBucket
  readonly #services: SocketServices

  constructor ({ tier, transport, address, services }: { tier: Tier, transport: Transport, address: string, services: SocketServices }) {
    this.tier = tier
    this.transport = transport
    this.address = address
    this.#services = services
    this.openedAt = this.heardAt = this.framedAt = services.now()
    this.nextStatsAt = this.openedAt + tier.options.intervalMs
    this.#bucket = new TokenBucket({ perSecond: tier.options.messagesPerSecond, burst: tier.options.burst, now: this.openedAt })
  }

  get isOpen () { return !this.#closing && this.transport.isOpen }
  get isAuthenticated () { return this.tier.handshake === null || this.principal !== null }

  /** A message from the client. */
  receive (data: Buffer, isBinary: boolean): void {
    if (!this.isOpen) return
    const now = this.#services.now()
    this.framedAt = now
    this.heard(now)
    if (this.#isLimited(now, data, isBinary)) return
    if (isBinary) return this.fail('unsupported_encoding', 'Frames are JSON text here')
    if (data.length > this.#maxFrameSize) return this.fail('message_too_large', `Frames of this tier have at most ${this.#maxFrameSize} bytes`)
    const text = data.toString()
    if (!this.#isKeepAlive(text)) this.#enqueue(text)
  }

  /** A sign of life of any kind, protocol pongs included. */
  heard (now: number): void {
    this.heardAt = now
    this.#services.liveness.heard(this)
  }

  send (text: string, sent?: () => void): void {
    if (!this.isOpen) return
    this.transport.send(text, sent)
    if (this.transport.bufferedAmount > this.#services.options.sockets.maxBufferedBytes) this.close(closeCodes.slowConsumer, 'Slow consumer')
  }

  sendFrame (frame: object): void {
    this.send(JSON.stringify(frame))
  }

  /** The bare `ack`: only for those who asked for one. */
  ack (frame: Frame): void {
    if (frame.requestId !== undefined) this.sendFrame({ type: 'ack', requestId: frame.requestId })
  }

  fail (code: ErrorCode, message: string, frame?: unknown, extras: object = {}): void {
    const requestId = requestIdOf(frame)
    this.sendFrame({ type: 'error', code, message, ...(requestId && { requestId }), ...extras })
  }

  /** Sends frames of which only the newest count: while those of a kind are on their way, the next ones wait and the newest of them win. */
  sendLatest (kind: string, make: () => readonly string[]): void {
    if (this.#onTheWay.has(kind)) {
      this.#onTheWay.set(kind, make)
      return
    }
    const texts = make()
    const last = texts.length - 1
    if (last >= 0) this.#onTheWay.set(kind, null)
    texts.forEach((text, index) => this.send(text, index === last ? () => this.#latestSent(kind) : undefined))
  }

  /** @param reason at most 123 bytes */
  close (code: number, reason: string): void {
    if (!this.isOpen) return
    this.#closing = true
    this.closingAt = this.#services.now()
    this.#queue = this.#held = []
    // The answer to the close frame has to be read, also while another frame is being handled.
    this.transport.resume()
    this.transport.close(code, reason)
  }

  /** Keeps a frame that came before the token. @returns whether there was room */
  hold (frame: Frame): boolean {
    return this.#held.push(frame) <= maxHeld
  }

  /** Puts what was held before all that came after it. */
  releaseHeld (): void {
    this.#queue.unshift(...this.#held)
    this.#held = []
  }

  #latestSent (kind: string) {
    const next = this.#onTheWay.get(kind)
    this.#onTheWay.delete(kind)
    if (next && this.isOpen) this.sendLatest(kind, next)
  }

  get #maxFrameSize () {
    return this.tier.options.maxMessageSize + (this.tier.handshake ? envelopeBytes : 0)
  }

  #isLimited (now: number, data: Buffer, isBinary: boolean): boolean {
    const retryAfterMs = this.#bucket.take(now)
    if (retryAfterMs === 0) return false
    // A sender over the limit still gets a frame through now and then: only a pause ends the count.
    if (now - this.#limitedAt > forgivenMs) this.#limitedSince = now
    this.#limitedAt = now
    const frame = isBinary || data.length > this.#maxFrameSize ? undefined : parse(data.toString())
    if (now - this.#limitedSince > abuseMs) this.close(closeCodes.tooManyMessages, 'Too many messages')
    else this.fail('rate_limited', 'Too many messages', frame, { retryAfterMs })
    return true
  }

  #isKeepAlive (text: string): boolean {
    if (text.length > 32) return false
    const word = text.trim().toLowerCase()
    if (word === 'ping') this.send('pong')
    return word === 'ping' || word === 'pong'
  }

  #enqueue (text: string) {
    if (this.#queue.length >= maxQueued) return this.close(closeCodes.tooManyMessages, 'Too many messages')
    const frame = parse(text)
    const requestId = requestIdOf(frame)
    // Without its requestId: that would be taken for the answer to the first.
    if (requestId !== undefined && this.#open.has(requestId)) return this.fail('malformed_message', 'This requestId is in use')
    if (requestId !== undefined) this.#open.add(requestId)
    this.#queue.push(frame)
    if (!this.#busy) this.#run().catch(error => this.#services.onError(error))
  }

  async #run (): Promise<void> {
    this.#busy = true
    while (this.#queue.length > 0 && this.isOpen) {
      const frame = this.#queue.shift()
      const handling = this.#handle(frame)
      if (handling) {
        this.transport.pause()
        await handling
        this.transport.resume()
      }
      this.#open.delete(requestIdOf(frame)!)
    }
    this.#busy = false
  }

  /** @returns a promise only when there is something to wait for; it never rejects */
  #handle (frame: unknown): Promise<void> | void {
    try {
      const handling = this.isAuthenticated ? this.#dispatch(frame) : this.tier.handshake!.receive(this, frame)
      return handling?.catch(error => this.#report(error, frame))
    } catch (error) {
      this.#report(error, frame)
    }
  }

  #dispatch (frame: unknown): Promise<void> | void {
    if (frame === undefined) return this.fail('malformed_message', 'Invalid JSON format')
    if (frame instanceof PoisonousFrame) return this.fail('malformed_message', 'A member has a forbidden name', frame)
    if (!isFrameLike(frame)) return this.fail('malformed_message', 'Expected a JSON object')
    const handler = typeof frame.type === 'string' ? this.tier.handlers.get(frame.type) : undefined
    if (!handler) return this.fail('unknown_type', `Unknown message type: ${typeText(frame.type)}`, frame)
    const [error] = fieldErrors(handler.schema, frame)
    if (error) return this.fail('invalid_frame', handler.invalid ?? `${error.path}: ${error.message}`, frame)
    return handler.handle(this, frame as Frame, this.#services)
  }

  #report (error: unknown, frame: unknown) {
    const code = isProblem(error) ? problemCodes[error.type] : undefined
    if (isProblem(error) && error.statusCode === 403) reportRefusal(this.#services, this, this.principal, error.message)
    if (code) return this.fail(code, (error as Error).message, frame, code === 'storage_unavailable' ? { retryAfterMs: Math.round(jittered(storageRetryMs, 0.5)) } : {})
    this.#services.onError(error)
    this.fail('internal_error', 'Something went wrong here', frame)
  }
}

/** Stands for a frame with members that would poison an object, which are as wrong as text that is not JSON. */
export class PoisonousFrame {
  readonly requestId: string | undefined

  constructor (frame: unknown) { this.requestId = requestIdOf(frame) }
}

const forbidding = { protoAction: 'error', constructorAction: 'error' } as const
const removing = { protoAction: 'remove', constructorAction: 'remove' } as const

/** @returns undefined for text that is not JSON */
function parse (text: string): unknown {
  try {
    return sjson.parse(text, undefined, forbidding)
  } catch {
    return parsePoisonous(text)
  }
}

function parsePoisonous (text: string): PoisonousFrame | undefined {
  try {
    return new PoisonousFrame(sjson.parse(text, undefined, removing))
  } catch {
    return undefined
  }
}

export function isFrameLike (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function requestIdOf (frame: unknown): string | undefined {
  if (!isFrameLike(frame) || typeof frame.requestId !== 'string') return undefined
  return frame.requestId.length <= maxRequestId ? frame.requestId : undefined
}

/** A missing type is shown as existing clients know it. */
function typeText (type: unknown): string {
  if (type === undefined || type === null) return 'None'
  return (typeof type === 'string' ? type : JSON.stringify(type)).slice(0, 100)
}
