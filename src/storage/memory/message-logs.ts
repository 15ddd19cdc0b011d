import { randomBytes } from 'node:crypto'
import type { Clock } from '../../lib/clock.js'
import type { BrokerLimits, LogEntry, LogPage, LogPosition } from '../message-broker.js'

type NewEntry = Omit<LogEntry, 'offset'>

function sizeOf ({ from, data, metadata = '', origin = '' }: NewEntry): number {
  return from.length + data.length + metadata.length + origin.length
}

/** The newest entries of one log, bounded by number, size and age. Offsets begin at 1. */
class MessageLog {
  readonly epoch: string
  #entries: LogEntry[] = []
  /** The index of the oldest entry that is kept. */
  #first = 0
  #size = 0
  #offset = 0

  constructor (epoch: string) {
    this.epoch = epoch
  }

  get offset () { return this.#offset }
  get size () { return this.#size }
  get isEmpty () { return this.#first === this.#entries.length }
  /** The offset of the oldest entry that is kept, or of the next entry of an empty log. */
  get oldest () { return this.#offset + 1 - (this.#entries.length - this.#first) }

  push (entry: NewEntry, { entries, bytes, ageMs }: Pick<BrokerLimits, 'entries' | 'bytes' | 'ageMs'>): LogEntry {
    const stored = { offset: ++this.#offset, ...entry }
    this.#entries.push(stored)
    this.#size += sizeOf(stored)
    while (this.oldest < this.#offset && (this.#offset - this.oldest >= entries || this.#size > bytes)) this.#shift()
    this.expire(entry.at - ageMs)
    return stored
  }

  /** Drops the entries that were stored before a time. */
  expire (before: number): void {
    for (let oldest = this.#entries[this.#first]; oldest && oldest.at < before; oldest = this.#entries[this.#first]) this.#shift()
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
    const oldest = this.#entries[this.#first++]
    if (oldest) this.#size -= sizeOf(oldest)
    // Dropped entries are removed together: removing them one by one would move all the others each time.
    if (this.#first > 64 && this.#first * 2 > this.#entries.length) {
      this.#entries = this.#entries.slice(this.#first)
      this.#first = 0
    }
  }
}

export interface LogsLimits extends BrokerLimits {
  /** The number of logs. */
  logs: number
  /** The size of all logs together. */
  totalBytes: number
}

/** How many logs an append checks for eviction, within the limits and beyond them: the cost of an append stays bounded. */
const checksPerAppend = { withinLimits: 1, beyondLimits: 16 }

/** Logs by name, least recently used first. Those are evicted, and begin with another epoch when they are used again. */
export class MemoryLogs {
  readonly #now: Clock
  readonly #limits: LogsLimits
  readonly #isFollowed: (name: string) => boolean
  readonly #logs = new Map<string, MessageLog>()
  readonly #nonce = randomBytes(6).toString('base64url')
  #evicted = 0
  #size = 0

  constructor (now: Clock, limits: LogsLimits, isFollowed: (name: string) => boolean) {
    this.#now = now
    this.#limits = limits
    this.#isFollowed = isFollowed
  }

  get count () { return this.#logs.size }
  get size () { return this.#size }

  append (name: string, entry: NewEntry): LogPosition & { entry: LogEntry } {
    const log = this.#use(name)
    const before = log.size
    const stored = log.push(entry, this.#limits)
    this.#size += log.size - before
    this.#makeRoom(name)
    return { epoch: log.epoch, offset: stored.offset, entry: stored }
  }

  /** The newest position of a log, which is created if it does not exist. */
  position (name: string): LogPosition {
    const { epoch, offset } = this.#use(name)
    this.#makeRoom(name)
    return { epoch, offset }
  }

  read (name: string, { since, limit }: { since?: LogPosition | undefined, limit: number }): LogPage {
    const log = this.#logs.get(name) ?? new MessageLog(this.#newEpoch())
    this.#expire(log)
    const { epoch, offset } = log
    if (!since) return { epoch, offset, entries: log.newest(limit), recovered: true }
    const isSame = since.epoch === epoch && since.offset <= offset
    const entries = log.after(isSame ? since.offset : 0, limit)
    return { epoch, offset, entries, recovered: isSame && log.oldest <= since.offset + 1 }
  }

  #expire (log: MessageLog) {
    const before = log.size
    log.expire(this.#now() - this.#limits.ageMs)
    this.#size += log.size - before
  }

  /** Moves a log to the end of the eviction order. */
  #use (name: string): MessageLog {
    const log = this.#logs.get(name) ?? new MessageLog(this.#newEpoch())
    this.#logs.delete(name)
    this.#logs.set(name, log)
    return log
  }

  /** Changes only when a log is evicted: a new log cannot be told from one that had no entries yet. */
  #newEpoch (): string {
    return `${this.#nonce}${this.#evicted.toString(36)}`
  }

  #makeRoom (except: string) {
    let checks = this.#isWithinLimits() ? checksPerAppend.withinLimits : checksPerAppend.beyondLimits
    for (const [name, log] of this.#logs) {
      if (name === except || checks-- === 0) break
      this.#expire(log)
      if (!log.isEmpty && this.#isWithinLimits()) break
      this.#evict(name, log)
    }
  }

  #isWithinLimits (): boolean {
    return this.#logs.size <= this.#limits.logs && this.#size <= this.#limits.totalBytes
  }

  /** A followed log loses its entries but keeps its position. */
  #evict (name: string, log: MessageLog) {
    this.#size -= log.size
    this.#logs.delete(name)
    if (this.#isFollowed(name)) {
      log.clear()
      this.#logs.set(name, log)
    } else this.#evicted++
  }
}
