import { randomBytes } from 'node:crypto'
import type { Clock } from '../../lib/clock.js'
import type { BrokerLimits, LogEntry, LogPage, LogPosition } from '../message-broker.js'
import { Ring } from './ring.js'

export interface LogsLimits extends BrokerLimits {
  /** How many logs there are. */
  logs: number
  /** Of all logs together. */
  totalBytes: number
}

/** How many logs an append looks at, where there is room and where there is none: it stays short whatever there is. */
const looks = { usual: 1, full: 16 }

/** Logs by name, those first that were used longest ago: these are forgotten, and begin anew with another epoch. */
export class MemoryLogs {
  readonly #now: Clock
  readonly #limits: LogsLimits
  readonly #isFollowed: (name: string) => boolean
  readonly #rings = new Map<string, Ring>()
  readonly #nonce = randomBytes(6).toString('base64url')
  #forgotten = 0
  #size = 0

  constructor (now: Clock, limits: LogsLimits, isFollowed: (name: string) => boolean) {
    this.#now = now
    this.#limits = limits
    this.#isFollowed = isFollowed
  }

  get count () { return this.#rings.size }
  get size () { return this.#size }

  append (name: string, entry: Omit<LogEntry, 'offset'>): LogPosition & { entry: LogEntry } {
    const ring = this.#used(name)
    const before = ring.size
    const stored = ring.push(entry, this.#limits)
    this.#size += ring.size - before
    this.#makeRoom(name)
    return { epoch: ring.epoch, offset: stored.offset, entry: stored }
  }

  /** Where a log stands, which from now on there is. */
  position (name: string): LogPosition {
    const { epoch, offset } = this.#used(name)
    this.#makeRoom(name)
    return { epoch, offset }
  }

  read (name: string, { since, limit }: { since?: LogPosition | undefined, limit: number }): LogPage {
    const ring = this.#rings.get(name) ?? new Ring(this.#newEpoch())
    this.#expire(ring)
    const { epoch, offset } = ring
    if (!since) return { epoch, offset, entries: ring.newest(limit), recovered: true }
    const isSame = since.epoch === epoch && since.offset <= offset
    return { epoch, offset, entries: ring.after(isSame ? since.offset : 0, limit), recovered: isSame && ring.oldest <= since.offset + 1 }
  }

  #expire (ring: Ring) {
    const before = ring.size
    ring.expire(this.#now() - this.#limits.ageMs)
    this.#size += ring.size - before
  }

  /** Puts a log behind all others. */
  #used (name: string): Ring {
    const ring = this.#rings.get(name) ?? new Ring(this.#newEpoch())
    this.#rings.delete(name)
    this.#rings.set(name, ring)
    return ring
  }

  /** The same until a log is forgotten: nobody can tell a log that is new from one that had no entries yet. */
  #newEpoch (): string {
    return `${this.#nonce}${this.#forgotten.toString(36)}`
  }

  #makeRoom (except: string) {
    let left = this.#fits() ? looks.usual : looks.full
    for (const [name, ring] of this.#rings) {
      if (name === except || left-- === 0) break
      this.#expire(ring)
      if (!ring.isEmpty && this.#fits()) break
      this.#letGo(name, ring)
    }
  }

  #fits (): boolean {
    return this.#rings.size <= this.#limits.logs && this.#size <= this.#limits.totalBytes
  }

  #letGo (name: string, ring: Ring) {
    this.#size -= ring.size
    this.#rings.delete(name)
    if (this.#isFollowed(name)) {
      ring.clear()
      this.#rings.set(name, ring)
    } else this.#forgotten++
  }
}
