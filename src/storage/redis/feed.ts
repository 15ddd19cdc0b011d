import type { AgentRecord, Change } from '../agent-store.js'
import { changeOf, metricsText, readMetrics, type ChangeEntry } from './records.js'

/** A sign of life: when, at which revision of the agent, and what it reported with it. */
export interface Touch { readonly id: string, readonly seen: number, readonly n: number, readonly metrics?: string }

export interface FeedListener {
  changed (changes: readonly Change[]): void
  touched (records: readonly AgentRecord[]): void
  /** What is known does not continue with what came. */
  lost (): void
}

/** All agents at one revision. */
export interface FeedPosition { readonly epoch: string, readonly revision: number, readonly mark: string, readonly records: Map<string, AgentRecord> }

interface Waiter { resolve: () => void, reject: (error: Error) => void }

const maxEarly = 10_000

/** Whether what was heard at a revision is of this life of an agent: one that went and came back has nothing of before. */
export const isOf = ({ created }: Pick<AgentRecord, 'created'>, n: number): boolean => n >= created

/**
 * The agents as this process knows them, and the one order in which it hears of changes: results of its own scripts and
 * the stream come together here, and each number is told once, when it is its turn.
 */
export class Feed {
  readonly #process: string
  readonly #listener: FeedListener
  #epoch = ''
  #n = 0
  #mark = ''
  #records = new Map<string, AgentRecord>()
  #following = false
  readonly #pending = new Map<number, ChangeEntry>()
  readonly #waiting = new Map<string, Waiter[]>()
  /** Signs of life of what is still to come. */
  #early: Touch[] = []
  /** Agents whose leases were last renewed through this process. */
  readonly #mine = new Set<string>()

  constructor (process: string, listener: FeedListener) {
    this.#process = process
    this.#listener = listener
  }

  get epoch () { return this.#epoch }
  get n () { return this.#n }
  get mark () { return this.#mark }
  /** False until all agents were read, and again while they are read anew. */
  get isFollowing () { return this.#following }
  get mine (): ReadonlySet<string> { return this.#mine }

  get (id: string): AgentRecord | undefined {
    return this.#records.get(id)
  }

  /** Takes the place of everything that was known. */
  load ({ epoch, revision, mark, records }: FeedPosition): void {
    this.#epoch = epoch
    this.#n = revision
    this.#mark = mark
    this.#records = records
    this.#following = true
    this.#pending.clear()
    for (const id of this.#mine) if (!records.has(id)) this.#mine.delete(id)
  }

  /** After the place has been told: who waits for it goes on. */
  resume (): void {
    for (const [key, waiters] of this.#waiting) {
      const [epoch, n] = key.split(':')
      if (epoch !== this.#epoch) this.#refuse(key, waiters, new Error('Redis has lost what was written'))
      else if (Number(n) <= this.#n) this.#release(key, waiters)
    }
    this.#catchUp()
  }

  /** No more changes are taken until `load`. */
  pause (): void {
    this.#following = false
  }

  /** Entries from wherever, in whichever order. */
  offer (entries: readonly ChangeEntry[]): void {
    for (const entry of entries) {
      if (entry.epoch !== this.#epoch) return this.#lose()
      if (entry.n > this.#n) this.#pending.set(entry.n, entry)
    }
    if (this.#following) this.#advance()
  }

  /** Resolves when the change with this number has been told. */
  async reached (epoch: string, n: number): Promise<void> {
    if (epoch === this.#epoch && n <= this.#n && this.#following) return
    if (epoch !== this.#epoch) this.#lose()
    await new Promise<void>((resolve, reject) => {
      const key = `${epoch}:${n}`
      this.#waiting.set(key, [...this.#waiting.get(key) ?? [], { resolve, reject }])
    })
  }

  /** Nobody knows when the changes will come that some wait for. */
  fail (error: Error): void {
    for (const [key, waiters] of this.#waiting) this.#refuse(key, waiters, error)
  }

  /** A sign of life that this process took in; its caller tells of it. */
  note ({ id, seen, n, metrics }: Touch): AgentRecord | undefined {
    this.#mine.add(id)
    const record = this.#records.get(id)
    return record && isOf(record, n) ? this.#put(record, seen, metrics) : record
  }

  /** Signs of life that other processes took in: those that are newer than ours make the lease theirs. */
  touch (touches: readonly Touch[]): void {
    const records: AgentRecord[] = []
    for (const touch of touches) {
      const before = this.#records.get(touch.id)
      if (!this.#following || touch.n > this.#n) this.#postpone(touch)
      else if (before && isOf(before, touch.n)) {
        const after = this.#put(before, touch.seen, touch.metrics)
        if (after !== before) records.push(after)
        if (after.lastSeen > before.lastSeen) this.#mine.delete(touch.id)
      }
    }
    if (records.length > 0) this.#listener.touched(records)
  }

  #postpone (touch: Touch) {
    if (this.#early.length < maxEarly) this.#early.push(touch)
  }

  #put (record: AgentRecord, seen: number, text: string | undefined): AgentRecord {
    const lastSeen = Math.max(record.lastSeen, seen)
    const reported = text === undefined || text === metricsText(record.metrics) ? record.metrics : readMetrics(text)
    const metrics = (reported?.lastActive ?? 0) >= (record.metrics?.lastActive ?? 0) ? reported : record.metrics
    if (lastSeen === record.lastSeen && metrics === record.metrics) return record
    const newer = { ...record, lastSeen, metrics }
    this.#records.set(record.id, newer)
    return newer
  }

  #lose () {
    if (this.#following) this.#listener.lost()
  }

  #advance () {
    const changes: Change[] = []
    for (let entry = this.#next(); entry; entry = this.#next()) {
      const change = this.#mark === '' || entry.after === this.#mark ? changeOf(entry, this.#records.get(entry.id)) : undefined
      if (!change) {
        this.#lose()
        break
      }
      this.#apply(entry, change)
      changes.push(change)
    }
    if (changes.length === 0) return
    this.#listener.changed(changes)
    if (this.#waiting.size > 0) for (const { n } of changes) this.#releaseKey(`${this.#epoch}:${n}`)
    this.#catchUp()
  }

  #next (): ChangeEntry | undefined {
    return this.#pending.get(this.#n + 1)
  }

  #apply (entry: ChangeEntry, { id, after }: Change) {
    this.#n = entry.n
    this.#mark = entry.mark
    this.#pending.delete(entry.n)
    if (after) this.#records.set(id, after)
    else this.#records.delete(id)
    if (after && entry.seen === entry.wasSeen) return
    if (after && entry.by === this.#process) this.#mine.add(id)
    else this.#mine.delete(id)
  }

  #catchUp () {
    if (this.#early.length === 0) return
    const early = this.#early
    this.#early = []
    this.touch(early)
  }

  #refuse (key: string, waiters: readonly Waiter[], error: Error) {
    this.#waiting.delete(key)
    for (const { reject } of waiters) reject(error)
  }

  #releaseKey (key: string) {
    const waiters = this.#waiting.get(key)
    if (waiters) this.#release(key, waiters)
  }

  #release (key: string, waiters: readonly Waiter[]) {
    this.#waiting.delete(key)
    for (const { resolve } of waiters) resolve()
  }
}
