import type { Batch } from './batch.js'
import type { Flusher } from './flusher.js'
import type { Encoding, EncodedMessage } from '../protocol/encoded-message.js'
import type { Traffic } from './traffic.js'
import type { Transport } from './transport.js'

/** Whose messages they are. */
export interface Sending {
  readonly transport: Transport
  readonly encoding: Encoding
  readonly traffic: Traffic
  /** Bytes that may wait for a socket that reads slowly. */
  readonly limit: number
  /** More waits than may. */
  closeSlow (): void
}

/** What is owed in one tick and is more than this is written before its end, so that one buffer does not hold it all. */
const eagerBytes = 1_048_576
/** What a message that waits takes beside its text, about: many short ones are not let off for being short. */
const messageBytes = 80

/**
 * What a connection is owed. Everything that is said within a tick leaves in one write at its end; while a socket has
 * not taken the last write, the next waits.
 */
export class Outbox {
  readonly #sending: Sending
  readonly #transport: Transport
  readonly #flusher: Flusher
  #batch: Batch | null = null
  /** About so many bytes wait in the batch. */
  #owed = 0
  #isBlocked = false
  #isClosed = false
  /** What is to be said when nothing is on its way, by kind: the newest of each. */
  #next: Map<string, () => void> | null = null

  constructor (sending: Sending, flusher: Flusher) {
    this.#sending = sending
    this.#transport = sending.transport
    this.#flusher = flusher
  }

  /** The socket has not taken yet what was written. */
  get isBlocked () { return this.#isBlocked }
  /** Bytes that wait, here and in the socket. */
  get depth () { return this.#owed + this.#transport.bufferedAmount }

  push (message: EncodedMessage): void {
    if (this.#isClosed) return
    if (this.#batch !== null) this.#batch = this.#batch.and(message)
    else this.#begin(message)
    this.#owed += message.text.length + messageBytes
    if (this.#owed > Math.min(eagerBytes, this.#sending.limit)) this.#relieve()
  }

  /** Calls back when what has been said so far has left; of a kind only the last counts. */
  whenSent (kind: string, go: () => void): void {
    this.#next ??= new Map()
    if (this.#next.has(kind)) this.#sending.traffic.superseded++
    this.#next.set(kind, go)
    if (this.#batch === null && !this.#isBlocked) this.#flusher.add(this)
  }

  flush (): void {
    if (this.#isBlocked || this.#isClosed) return
    const batch = this.#batch
    this.#batch = null
    this.#owed = 0
    if (batch !== null) this.#write(batch)
    if (this.#transport.bufferedAmount > 0) this.#block()
    else this.#goOn()
  }

  /** Sends what is owed and then the close frame; a reader that is too slow for the one gets the other only. */
  close (code: number, reason: string, isSlow: boolean): void {
    const transport = this.#transport
    const batch = isSlow ? null : this.#batch
    this.#drop()
    transport.together(() => {
      if (batch) this.#write(batch)
      transport.close(code, reason)
    })
  }

  /** Nothing is sent any more. */
  #drop () {
    this.#isClosed = true
    this.#batch = this.#next = null
    this.#owed = 0
  }

  #begin (message: EncodedMessage) {
    this.#batch = this.#flusher.begin(message)
    if (!this.#isBlocked) this.#flusher.add(this)
  }

  #relieve () {
    this.flush()
    if (this.depth > this.#sending.limit) this.#sending.closeSlow()
  }

  #write (batch: Batch) {
    const { encoding, traffic } = this.#sending
    try {
      if (this.#transport.isOpen) this.#transport.write(batch, encoding, traffic)
    } catch (error) {
      this.#flusher.failed(error)
      // Some of what it is owed is lost: it must not seem whole.
      this.#drop()
      this.#transport.terminate()
    }
  }

  #block () {
    this.#isBlocked = true
    if (this.depth > this.#sending.limit) return this.#sending.closeSlow()
    this.#transport.whenDrained(() => {
      this.#isBlocked = false
      if (this.#batch !== null) this.#flusher.add(this)
      else this.#goOn()
    })
  }

  #goOn () {
    const next = this.#next
    if (next === null) return
    this.#next = null
    for (const go of next.values()) {
      try { go() } catch (error) { this.#flusher.failed(error) }
    }
  }
}
