import type { BrokerLimits, LogEntry } from '../message-broker.js'

const lengthOf = ({ from, data, metadata = '', origin = '' }: Omit<LogEntry, 'offset'>) => from.length + data.length + metadata.length + origin.length

/** The newest entries of a log, bounded by number, size and age. Offsets begin at 1. */
export class Ring {
  readonly epoch: string
  #entries: LogEntry[] = []
  /** Index of the oldest that is kept. */
  #first = 0
  #size = 0
  #offset = 0

  constructor (epoch: string) {
    this.epoch = epoch
  }

  get offset () { return this.#offset }
  get size () { return this.#size }
  get isEmpty () { return this.#first === this.#entries.length }
  /** Offset of the oldest that is kept, or of the next one. */
  get oldest () { return this.#offset + 1 - (this.#entries.length - this.#first) }

  push (entry: Omit<LogEntry, 'offset'>, limits: Pick<BrokerLimits, 'entries' | 'bytes' | 'ageMs'>): LogEntry {
    const stored = { offset: ++this.#offset, ...entry }
    this.#entries.push(stored)
    this.#size += lengthOf(stored)
    while (this.oldest < this.#offset && (this.#offset - this.oldest >= limits.entries || this.#size > limits.bytes)) this.#shift()
    this.expire(entry.at - limits.ageMs)
    return stored
  }

  /** Drops what was stored before a time. */
  expire (before: number): void {
    while (!this.isEmpty && this.#entries[this.#first]!.at < before) this.#shift()
  }

  clear (): void {
    this.#entries = []
    this.#first = 0
    this.#size = 0
  }

  newest (limit: number): LogEntry[] {
    return this.#entries.slice(Math.max(this.#first, this.#entries.length - limit))
  }

  after (offset: number, limit: number): LogEntry[] {
    const start = this.#first + Math.max(0, offset + 1 - this.oldest)
    return this.#entries.slice(start, start + limit)
  }

  #shift () {
    this.#size -= lengthOf(this.#entries[this.#first++]!)
    // What lies before the first is let go together, or each would move all the others.
    if (this.#first > 64 && this.#first * 2 > this.#entries.length) {
      this.#entries = this.#entries.slice(this.#first)
      this.#first = 0
    }
  }
}
