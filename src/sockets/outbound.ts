import type { EncodedMessage, Encoding } from '../protocol/encoded-message.js'

/** Counters of the frames of one tier since the start. Bytes are those of messages; sent bytes include frame headers. */
export class Traffic {
  framesIn = 0
  bytesIn = 0
  framesOut = 0
  bytesOut = 0
  /** Socket writes; one write can contain several frames. */
  writes = 0
  /** Frames that were not sent because a newer frame replaced them. */
  superseded = 0
  /** Frames that were not handled because a rate limit was reached. */
  limited = 0
  /** Connections that were closed because the client read too slowly. */
  slowCloses = 0

  /** Counts one write. @param bytes including headers, before compression */
  wrote (frames: number, bytes: number): void {
    this.writes++
    this.framesOut += frames
    this.bytesOut += bytes
  }
}

/** The operations of a WebSocket that a connection uses. */
export interface Transport {
  /** Bytes that were written and have not reached the network. */
  readonly bufferedAmount: number
  readonly isOpen: boolean
  /** Writes a batch and counts it in `traffic`. */
  write (batch: FrameBatch, encoding: Encoding, traffic: Traffic): void
  /** Calls `drained` once everything written so far has left; never if the socket closes before. */
  whenDrained (drained: () => void): void
  /** Runs `write`; everything that it writes leaves in one packet if possible. */
  together (write: () => void): void
  /** @param reason at most 123 bytes */
  close (code: number, reason: string): void
  terminate (): void
  /** Stops reading, which slows the sender down. */
  pause (): void
  resume (): void
}

/**
 * An immutable list of messages in sending order. Each batch links to its last extension: sockets to which the same
 * messages are sent within a tick reach the same batch object and share its encoded bytes.
 */
export class FrameBatch {
  readonly last: EncodedMessage
  readonly before: FrameBatch | null
  readonly count: number
  #next: FrameBatch | undefined
  #text: Buffer | undefined
  #packed: Buffer | undefined

  constructor (last: EncodedMessage, before: FrameBatch | null) {
    this.last = last
    this.before = before
    this.count = before === null ? 1 : before.count + 1
  }

  /** The batch with one more message. */
  and (message: EncodedMessage): FrameBatch {
    if (this.#next?.last !== message) this.#next = new FrameBatch(message, this)
    return this.#next
  }

  /** All frames as they are sent on the wire. */
  bytes (encoding: Encoding): Buffer {
    if (this.count === 1) return this.last.frame(encoding)
    if (encoding === 'json') return (this.#text ??= this.#join(encoding))
    return (this.#packed ??= this.#join(encoding))
  }

  /** The messages, first to last. */
  messages (): EncodedMessage[] {
    return [...this.#backwards()].reverse()
  }

  #join (encoding: Encoding): Buffer {
    let at = 0
    for (const message of this.#backwards()) at += message.size(encoding)
    const joined = Buffer.allocUnsafe(at)
    for (const message of this.#backwards()) {
      at -= message.size(encoding)
      message.writeTo(joined, at, encoding)
    }
    return joined
  }

  * #backwards (): Generator<EncodedMessage> {
    yield this.last
    for (let batch = this.before; batch !== null; batch = batch.before) yield batch.last
  }
}

/** Writes the queues of all connections at the end of a tick, each with one socket write. */
export class Flusher {
  #queues: OutboundQueue[] = []
  #first: FrameBatch | undefined
  #immediate: NodeJS.Immediate | undefined
  readonly #onError: (error: unknown) => void

  constructor (onError: (error: unknown) => void) {
    this.#onError = onError
  }

  /** The batch that starts with `message`. Queues that start with the same message within a tick share it. */
  begin (message: EncodedMessage): FrameBatch {
    if (this.#first?.last !== message) this.#first = new FrameBatch(message, null)
    return this.#first
  }

  add (queue: OutboundQueue): void {
    this.#queues.push(queue)
    this.#immediate ??= setImmediate(() => { this.#flush() })
  }

  /** Reports an error of one connection; the others are not affected. */
  failed (error: unknown): void {
    this.#onError(error)
  }

  /** Messages that are pushed during the flush are written in the next tick. */
  #flush () {
    const queues = this.#queues
    this.#queues = []
    this.#first = this.#immediate = undefined
    for (const queue of queues) {
      try { queue.flush() } catch (error) { this.failed(error) }
    }
  }
}

/** The connection to which a queue belongs. */
export interface QueueOwner {
  readonly transport: Transport
  readonly encoding: Encoding
  readonly traffic: Traffic
  /** Largest number of bytes that may wait for the client. */
  readonly limit: number
  /** Closes the connection because more than `limit` bytes wait. */
  closeSlow (): void
}

/** A batch over this size is written before the end of its tick, to bound the size of one buffer. */
const eagerBytes = 1_048_576
/** Approximate memory of a waiting message beside its text, so that many short messages count too. */
const messageBytes = 80

/**
 * The messages that wait for one connection. All messages of a tick leave in one write at its end. While the socket has
 * not drained the last write, new messages wait.
 */
export class OutboundQueue {
  readonly #owner: QueueOwner
  readonly #transport: Transport
  readonly #flusher: Flusher
  #batch: FrameBatch | null = null
  /** Approximate bytes in the batch. */
  #pending = 0
  #isBlocked = false
  #isClosed = false
  /** Callbacks for when nothing waits any more: the newest of each kind. */
  #next: Map<string, () => void> | null = null

  constructor (owner: QueueOwner, flusher: Flusher) {
    this.#owner = owner
    this.#transport = owner.transport
    this.#flusher = flusher
  }

  /** Whether the socket has not drained the last write. */
  get isBlocked () { return this.#isBlocked }
  /** Bytes that wait, in the queue and in the socket. */
  get depth () { return this.#pending + this.#transport.bufferedAmount }

  push (message: EncodedMessage): void {
    if (this.#isClosed) return
    if (this.#batch !== null) this.#batch = this.#batch.and(message)
    else this.#begin(message)
    this.#pending += message.text.length + messageBytes
    if (this.#pending > Math.min(eagerBytes, this.#owner.limit)) this.#flushEarly()
  }

  /** Calls `callback` once all messages so far have left. A later callback of the same kind replaces it. */
  whenSent (kind: string, callback: () => void): void {
    this.#next ??= new Map()
    if (this.#next.has(kind)) this.#owner.traffic.superseded++
    this.#next.set(kind, callback)
    if (this.#batch === null && !this.#isBlocked) this.#flusher.add(this)
  }

  flush (): void {
    if (this.#isBlocked || this.#isClosed) return
    const batch = this.#batch
    this.#batch = null
    this.#pending = 0
    if (batch !== null) this.#write(batch)
    if (this.#transport.bufferedAmount > 0) this.#block()
    else this.#callNext()
  }

  /** Sends the waiting messages and a close frame; with `isSlow` only the close frame. */
  close (code: number, reason: string, isSlow: boolean): void {
    const transport = this.#transport
    const batch = isSlow ? null : this.#batch
    this.#drop()
    transport.together(() => {
      if (batch) this.#write(batch)
      transport.close(code, reason)
    })
  }

  /** Discards the waiting messages and ignores later ones. */
  #drop () {
    this.#isClosed = true
    this.#batch = this.#next = null
    this.#pending = 0
  }

  #begin (message: EncodedMessage) {
    this.#batch = this.#flusher.begin(message)
    if (!this.#isBlocked) this.#flusher.add(this)
  }

  #flushEarly () {
    this.flush()
    if (this.depth > this.#owner.limit) this.#owner.closeSlow()
  }

  #write (batch: FrameBatch) {
    const { encoding, traffic } = this.#owner
    try {
      if (this.#transport.isOpen) this.#transport.write(batch, encoding, traffic)
    } catch (error) {
      this.#flusher.failed(error)
      // Some messages are lost: the client must not take what follows for the complete sequence.
      this.#drop()
      this.#transport.terminate()
    }
  }

  #block () {
    this.#isBlocked = true
    if (this.depth > this.#owner.limit) return this.#owner.closeSlow()
    this.#transport.whenDrained(() => {
      this.#isBlocked = false
      if (this.#batch !== null) this.#flusher.add(this)
      else this.#callNext()
    })
  }

  #callNext () {
    const next = this.#next
    if (next === null) return
    this.#next = null
    for (const callback of next.values()) {
      try { callback() } catch (error) { this.#flusher.failed(error) }
    }
  }
}
