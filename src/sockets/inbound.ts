import type { Clock } from '../lib/clock.js'
import type { FrameRate } from '../limits/frame-rate.js'
import { closeCodes, type ErrorCode } from '../protocol/codes.js'
import type { Encoding } from '../protocol/encoded-message.js'
import { unpack } from '../protocol/message-pack.js'
import { isKeepAliveFrame, parse, requestIdOf } from '../protocol/validation.js'
import type { Traffic, Transport } from './outbound.js'

interface QueuedFrame { readonly frame: unknown, readonly bytes: number }

/** A queue of frames, bounded in number and bytes. */
class FrameQueue {
  readonly #maxFrames: number
  readonly #maxBytes: number
  #frames: QueuedFrame[] = []
  #bytes = 0

  constructor (maxFrames: number, maxBytes: number) {
    this.#maxFrames = maxFrames
    this.#maxBytes = maxBytes
  }

  /** @returns false if the queue is full */
  add (queued: QueuedFrame): boolean {
    if (this.#frames.length >= this.#maxFrames || this.#bytes + queued.bytes > this.#maxBytes) return false
    this.#bytes += queued.bytes
    this.#frames.push(queued)
    return true
  }

  next (): QueuedFrame | undefined {
    const queued = this.#frames.shift()
    if (queued !== undefined) this.#bytes -= queued.bytes
    return queued
  }

  /** Puts the frames of another queue before the own ones. */
  prepend (other: FrameQueue): void {
    this.#frames = [...other.#frames, ...this.#frames]
    this.#bytes += other.#bytes
  }
}

const pauseMs = 100

/** Stops reading for a moment from connections that send far too much. All share one timer, which runs only when needed. */
export class Throttle {
  #paused = new Set<InboundFrames>()
  #timer: NodeJS.Timeout | undefined

  has (inbound: InboundFrames): boolean {
    return this.#paused.has(inbound)
  }

  pause (inbound: InboundFrames): void {
    this.#paused.add(inbound)
    this.#timer ??= setTimeout(() => { this.#resumeAll() }, pauseMs).unref()
  }

  stop (): void {
    clearTimeout(this.#timer)
    this.#resumeAll()
  }

  #resumeAll () {
    const paused = this.#paused
    this.#paused = new Set()
    this.#timer = undefined
    for (const inbound of paused) inbound.resume()
  }
}

/** The connection whose frames are handled. */
export interface InboundOwner {
  readonly isOpen: boolean
  readonly transport: Transport
  readonly encoding: Encoding
  readonly traffic: Traffic
  readonly rate: FrameRate
  readonly maxFrameBytes: number
  /** Last activity of the client (epoch ms). */
  heardAt: number
  /** Handles a bare text `ping` or `pong`. @returns whether `text` was one */
  handleKeepAlive (text: string): boolean
  /** Whether the `requestId` of a frame refers to an earlier frame that has no reply yet. */
  namesOpenRequest (frame: unknown): boolean
  /** Handles a frame. @returns a promise if the next frame has to wait */
  handle (frame: unknown): Promise<void> | void
  /** Sends the error that was thrown for a frame. */
  handlingFailed (error: unknown, frame: unknown): void
  fail (code: ErrorCode, message: string, frame?: unknown, extras?: object): void
  close (code: number, reason: string): void
}

export interface InboundServices {
  readonly now: Clock
  readonly throttle: Throttle
  readonly onError: (error: unknown) => void
}

const maxQueued = 1000
/** The socket is paused while a frame is handled, so that only compressed frames can bring more than the network buffers hold. */
const maxQueuedBytes = 1_048_576
const maxEarly = 64
/** Replies that may be pending while later frames are handled. */
const maxPendingReplies = 1000
const none: ReadonlySet<string> = new Set()

/**
 * The frames from one client: limits their rate and size, decodes them, and passes them on one at a time in the order of
 * arrival. While a frame is handled asynchronously, the socket is paused.
 */
export class InboundFrames {
  /** When the client last sent a frame, and a frame other than a ping or pong (epoch ms). */
  framedAt: number
  usedAt: number
  readonly #owner: InboundOwner
  readonly #services: InboundServices
  #queue: FrameQueue | null = null
  /** Frames that arrived before the token, to be handled after authentication. */
  #early: FrameQueue | null = null
  /** The requestIds of queued frames and of the current frame. */
  #requestIds: Set<string> | null = null
  /** The requestIds of frames whose reply is pending while later frames are handled. */
  #pendingIds: Set<string> | null = null
  #pendingReplies = 0
  #isBusy = false
  /** Size of the current frame. */
  #bytes = 0
  #isFenced = false
  #isRetired = false

  constructor (owner: InboundOwner, services: InboundServices) {
    this.#owner = owner
    this.#services = services
    this.framedAt = this.usedAt = services.now()
  }

  /** Whether the client has received `going_away` and every frame that it sent before has a reply. */
  get isSettled () { return this.#isFenced && !this.#isBusy && this.#pendingReplies === 0 }

  /** Ignores frames that the client sends after it has received `going_away`. */
  retire (): void {
    this.#isRetired = true
  }

  /** A message from the client. */
  receive (data: Buffer, isBinary: boolean): void {
    const owner = this.#owner
    if (!owner.isOpen || (this.#isRetired && this.#isFenced)) return
    const now = this.#services.now()
    this.framedAt = now
    owner.traffic.framesIn++
    owner.traffic.bytesIn += data.length
    owner.heardAt = now
    const retryAfterMs = owner.rate.take(now)
    if (retryAfterMs > 0) return this.#refuse(data, isBinary, retryAfterMs)
    if (!this.#accepts(isBinary)) return owner.fail('unsupported_encoding', 'This connection accepts only JSON text frames')
    if (data.length > owner.maxFrameBytes) {
      return owner.fail('message_too_large', `The frame is larger than the limit of ${owner.maxFrameBytes} bytes`)
    }
    if (isBinary) return this.#enqueue(unpacked(data), data.length)
    const text = data.toString()
    if (!owner.handleKeepAlive(text)) this.#enqueue(parse(text), data.length)
  }

  /** A protocol ping. ws has already answered it, so a ping over the limit is not refused but slows reading down. */
  pinged (): void {
    const now = this.#services.now()
    this.#owner.heardAt = now
    if (this.#owner.rate.take(now) > 0) this.#restrain()
  }

  /** A protocol pong, solicited or not. Only the pong that answers the ping after `going_away` has a payload. */
  ponged (data: Buffer): void {
    if (data.length > 0) this.#isFenced = true
    this.pinged()
  }

  /** Resumes reading unless a frame is being handled or the connection is throttled. */
  resume (): void {
    if (!this.#isBusy && !this.#services.throttle.has(this)) this.#owner.transport.resume()
  }

  /** Keeps the current frame, which arrived before the token. @returns false if too many frames are kept */
  holdUntilAuthenticated (frame: unknown): boolean {
    this.#early ??= new FrameQueue(maxEarly, this.#owner.maxFrameBytes)
    return this.#early.add({ frame, bytes: this.#bytes })
  }

  /** Handles the frames that arrived before the token, before any later ones. */
  releaseEarly (): void {
    if (this.#early === null) return
    this.#waiting.prepend(this.#early)
    this.#early = null
    if (!this.#isBusy) this.#continue()
  }

  /**
   * Lets later frames pass while the reply to this one is pending.
   * @returns a promise for the reply if too many replies are pending, so that the next frame has to wait
   */
  replyLater (handling: Promise<void>, requestId: string | undefined): Promise<void> | void {
    if (requestId !== undefined) (this.#pendingIds ??= new Set()).add(requestId)
    this.#pendingReplies++
    const replied = handling.catch(error => this.#owner.handlingFailed(error, { requestId })).then(() => {
      this.#pendingReplies--
      if (requestId !== undefined) this.#pendingIds?.delete(requestId)
    })
    return this.#pendingReplies > maxPendingReplies ? replied : undefined
  }

  /** Discards all queued frames. */
  clear (): void {
    this.#queue = this.#early = this.#requestIds = this.#pendingIds = null
  }

  #accepts (isBinary: boolean) {
    return !isBinary || this.#owner.encoding === 'msgpack'
  }

  /** Reports a frame over the rate limit, which is not handled. */
  #refuse (data: Buffer, isBinary: boolean, retryAfterMs: number) {
    const owner = this.#owner
    this.#restrain()
    if (!owner.isOpen) return
    const isReadable = this.#accepts(isBinary) && data.length <= owner.maxFrameBytes
    owner.fail('rate_limited', 'Too many messages', isReadable ? decoded(data, isBinary) : undefined, { retryAfterMs })
  }

  #restrain () {
    const { rate, traffic, transport } = this.#owner
    traffic.limited++
    if (rate.isAbuse) return this.#owner.close(closeCodes.tooManyMessages, 'Too many messages')
    if (!rate.isFlood) return
    this.#services.throttle.pause(this)
    transport.pause()
  }

  #enqueue (frame: unknown, bytes: number) {
    if (!isKeepAliveFrame(frame)) this.usedAt = this.framedAt
    const requestId = requestIdOf(frame)
    // The error has no requestId: the client would take it for the reply to the earlier frame.
    if (requestId !== undefined && this.#isInUse(requestId) && !this.#owner.namesOpenRequest(frame)) {
      return this.#owner.fail('malformed_message', 'This requestId is in use')
    }
    if (this.#isBusy) this.#wait({ frame, bytes }, requestId)
    else this.#take({ frame, bytes })
  }

  #isInUse (requestId: string): boolean {
    return (this.#requestIds ?? none).has(requestId) || (this.#pendingIds ?? none).has(requestId)
  }

  get #waiting () { return (this.#queue ??= new FrameQueue(maxQueued, maxQueuedBytes)) }

  #wait (queued: QueuedFrame, requestId: string | undefined) {
    if (!this.#waiting.add(queued)) return this.#owner.close(closeCodes.tooManyMessages, 'Too many messages')
    if (requestId !== undefined) (this.#requestIds ??= new Set()).add(requestId)
  }

  #take ({ frame, bytes }: QueuedFrame) {
    this.#isBusy = true
    this.#bytes = bytes
    const requestId = requestIdOf(frame)
    const handling = this.#handle(frame)
    if (!handling) return this.#finish(requestId)
    if (requestId !== undefined) (this.#requestIds ??= new Set()).add(requestId)
    this.#owner.transport.pause()
    handling.then(() => {
      this.#finish(requestId)
      this.resume()
      this.#continue()
    }, this.#services.onError)
  }

  #finish (requestId: string | undefined) {
    this.#isBusy = false
    if (requestId !== undefined) this.#requestIds?.delete(requestId)
  }

  #continue () {
    while (!this.#isBusy && this.#owner.isOpen) {
      const queued = this.#queue?.next()
      if (queued === undefined) return
      this.#take(queued)
    }
  }

  /** @returns a promise, which never rejects, if the next frame has to wait */
  #handle (frame: unknown): Promise<void> | void {
    try {
      return this.#owner.handle(frame)?.catch(error => this.#owner.handlingFailed(error, frame))
    } catch (error) {
      this.#owner.handlingFailed(error, frame)
    }
  }
}

function decoded (data: Buffer, isBinary: boolean): unknown {
  return isBinary ? unpacked(data) : parse(data.toString())
}

/** @returns undefined for invalid MessagePack, as `parse` does for invalid JSON */
function unpacked (data: Buffer): unknown {
  try {
    return unpack(data)
  } catch {
    return undefined
  }
}
