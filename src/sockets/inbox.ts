import { isProblem } from '../errors.js'
import { closeCodes, errorOf } from '../protocol/codes.js'
import type { Connection } from './connection.js'
import { FrameQueue, type QueuedFrame } from './frame-queue.js'
import { isFrameLike, PoisonousFrame, requestIdOf, typeText, type Frame } from '../protocol/parse.js'
import { reportRefusal } from './refusals.js'
import type { SocketServices } from './services.js'
import type { FrameHandler } from './handlers/define.js'

const maxQueued = 1000
/** While a frame is handled the socket is not read: more than the network brought along until then comes only out of compressed frames. */
const maxQueuedBytes = 1_048_576
const maxHeld = 64
/** Answers that may be under way while the next frames are handled. */
const maxOwed = 1000
const nobody: ReadonlySet<string> = new Set()

/** Frames of a connection, handled one at a time and in the order they came; while one waits for something the socket is not read. */
export class Inbox {
  readonly #connection: Connection
  readonly #services: SocketServices
  /** Frames that wait for their turn. */
  #queue: FrameQueue | null = null
  /** Frames that came before the token, for after it. */
  #held: FrameQueue | null = null
  /** requestIds that wait for their answer. */
  #open: Set<string> | null = null
  /** The same of frames whose answer others do not wait for. */
  #owedIds: Set<string> | null = null
  #owed = 0
  #isBusy = false
  /** Bytes of the frame that is being handled. */
  #bytes = 0

  constructor (connection: Connection, services: SocketServices) {
    this.#connection = connection
    this.#services = services
  }

  /** A frame is being handled, and the next ones wait for it. */
  get isBusy () { return this.#isBusy }
  /** Every frame has its answer. */
  get isSettled () { return !this.#isBusy && this.#owed === 0 }

  /** @param frame undefined stands for what is not JSON */
  add (frame: unknown, bytes: number): void {
    const requestId = requestIdOf(frame)
    // Without its requestId: that would be taken for the answer to the first.
    if (requestId !== undefined && this.#isOpen(requestId) && !this.#handlerOf(frame)?.namesOpen) return this.#connection.fail('malformed_message', 'This requestId is in use')
    if (this.#isBusy) this.#wait({ frame, bytes }, requestId)
    else this.#take({ frame, bytes })
  }

  /** Keeps the frame that is being handled, which came before the token. @returns whether there was room */
  hold (frame: Frame): boolean {
    this.#held ??= new FrameQueue(maxHeld, this.#connection.maxFrameBytes)
    return this.#held.add({ frame, bytes: this.#bytes })
  }

  /** Puts what was held before all that came after it. */
  releaseHeld (): void {
    if (this.#held === null) return
    this.#waiting.prepend(this.#held)
    this.#held = null
    if (!this.#isBusy) this.#goOn()
  }

  clear (): void {
    this.#queue = this.#held = this.#open = this.#owedIds = null
  }

  #wait (queued: QueuedFrame, requestId: string | undefined) {
    if (!this.#waiting.add(queued)) return this.#connection.close(closeCodes.tooManyMessages, 'Too many messages')
    if (requestId !== undefined) this.#openIds.add(requestId)
  }

  #isOpen (requestId: string): boolean {
    return (this.#open ?? nobody).has(requestId) || (this.#owedIds ?? nobody).has(requestId)
  }

  get #waiting () { return (this.#queue ??= new FrameQueue(maxQueued, maxQueuedBytes)) }
  get #openIds () { return (this.#open ??= new Set()) }

  /** Handles one frame; the next ones have to wait when it does. */
  #take ({ frame, bytes }: QueuedFrame) {
    this.#isBusy = true
    this.#bytes = bytes
    const handling = this.#handle(frame)
    if (!handling) return this.#finished(frame)
    const requestId = requestIdOf(frame)
    if (requestId !== undefined) this.#openIds.add(requestId)
    this.#connection.transport.pause()
    handling.then(() => {
      this.#finished(frame)
      this.#connection.readOn()
      this.#goOn()
    }, this.#services.onError)
  }

  #finished (frame: unknown) {
    this.#isBusy = false
    this.#open?.delete(requestIdOf(frame)!)
  }

  #goOn () {
    while (!this.#isBusy && this.#connection.isOpen) {
      const queued = this.#queue?.next()
      if (queued === undefined) return
      this.#take(queued)
    }
  }

  /** @returns a promise only when there is something to wait for; it never rejects */
  #handle (frame: unknown): Promise<void> | void {
    try {
      const { isAuthenticated, tier } = this.#connection
      const handling = isAuthenticated ? this.#dispatch(frame) : tier.handshake!.receive?.(this.#connection, frame)
      return handling?.catch(error => this.#report(error, frame))
    } catch (error) {
      this.#report(error, frame)
    }
  }

  #dispatch (frame: unknown): Promise<void> | void {
    const connection = this.#connection
    if (frame === undefined) return connection.fail('malformed_message', 'Invalid JSON format')
    if (frame instanceof PoisonousFrame) return connection.fail('malformed_message', 'A member has a forbidden name', frame)
    if (!isFrameLike(frame)) return connection.fail('malformed_message', 'Expected a JSON object')
    const handler = this.#handlerOf(frame)
    if (!handler) return connection.fail('unknown_type', `Unknown message type: ${typeText(frame.type)}`, frame)
    const handling = handler.handle(connection, frame, this.#services)
    return handling && handler.answersLater ? this.#owe(handling, requestIdOf(frame)) : handling
  }

  #handlerOf (frame: unknown): FrameHandler | undefined {
    return isFrameLike(frame) && typeof frame.type === 'string' ? this.#connection.tier.handlers.get(frame.type) : undefined
  }

  /** The next frames do not wait for this answer, unless too many are owed. */
  #owe (handling: Promise<void>, requestId: string | undefined): Promise<void> | void {
    if (requestId !== undefined) (this.#owedIds ??= new Set()).add(requestId)
    this.#owed++
    const answered = handling.catch(error => this.#report(error, { requestId })).then(() => {
      this.#owed--
      this.#owedIds?.delete(requestId!)
    })
    return this.#owed > maxOwed ? answered : undefined
  }

  #report (error: unknown, frame: unknown) {
    const connection = this.#connection
    if (isProblem(error) && error.statusCode === 403) reportRefusal(this.#services, connection, connection.principal, error.message)
    const known = errorOf(error)
    if (known) return connection.fail(known.code, (error as Error).message, frame, known.extras)
    this.#services.onError(error)
    connection.fail('internal_error', 'Something went wrong here', frame)
  }
}
