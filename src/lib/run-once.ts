import { randomUUID } from 'node:crypto'
import type { Clock } from './clock.js'

/** The part of a key-value store that `RunOnce` needs. Both methods are atomic. Entries end at `until` (epoch ms). */
interface RunOnceStore<Kind extends string> {
  get (kind: Kind, key: string): Promise<string | undefined>
  /** @param onlyIf the current value that the write requires, null for none. @returns whether it was met */
  put (entry: { kind: Kind, key: string, value: string, until: number }, onlyIf?: string | null): Promise<boolean>
}

/** Limits on the records that one process keeps in the store. Beyond them the oldest records are expired early. */
interface RunOnceLimits { maxRecords: number, maxBytes: number, maxRecordsPerOwner: number }

interface RunOnceOptions<Kind extends string> {
  store: RunOnceStore<Kind>
  kind: Kind
  now: Clock
  /** How long a record is kept (ms). */
  keptMs: number
  /** Without limits records are expired by time only. */
  limits?: RunOnceLimits
}

interface ClaimRequest {
  key: string
  /** Identifies the request: a key may be claimed again for the same one. */
  request: string
  /** The records of an owner are limited together. */
  owner: string
  /** How long the request may run (ms). After that another process may claim the key. */
  runMs: number
}

/** A claim that this process holds. */
interface Held { readonly state: 'held', readonly key: string, readonly request: string, readonly owner: string, readonly text: string }

/** Another request holds the claim. */
interface Running { readonly state: 'running', readonly request: string }

/** A request has succeeded at `at` (epoch ms) and recorded `value`. */
interface Done { readonly state: 'done', readonly request: string, readonly at: number, readonly value: unknown }

type Claim = Held | Running | Done

/** The stored value: a request that runs until `until`, or the recorded value of one that has succeeded. */
interface Entry { request: string, by: string, at: number, until?: number, done?: { value: unknown } }

/**
 * Runs a request once among all processes that share a store: `claim` a key, `run` the request, and the result is
 * recorded until it expires. A failed request releases its claim, so that the key can be claimed again. If a process
 * ends while it holds a claim, the claim lapses after the request's `runMs`.
 */
export class RunOnce<Kind extends string> {
  readonly #store: RunOnceStore<Kind>
  readonly #kind: Kind
  readonly #now: Clock
  readonly #keptMs: number
  readonly #records: RecordList | undefined

  constructor ({ store, kind, now, keptMs, limits }: RunOnceOptions<Kind>) {
    this.#store = store
    this.#kind = kind
    this.#now = now
    this.#keptMs = keptMs
    this.#records = limits && new RecordList(limits)
  }

  /** Claims a key unless a request runs or has succeeded under it. */
  async claim ({ key, request, owner, runMs }: ClaimRequest): Promise<Claim> {
    const now = this.#now()
    const entry: Entry = { request, by: randomUUID(), at: now, until: now + runMs }
    const text = JSON.stringify(entry)
    let lapsed: string | null = null
    while (!await this.#put(key, text, lapsed)) {
      const stored: string | undefined = await this.#store.get(this.#kind, key)
      const known: Entry | undefined = stored === undefined ? undefined : JSON.parse(stored)
      if (known?.done) return { state: 'done', request: known.request, at: known.at, value: known.done.value }
      if (known?.until !== undefined && known.until > this.#now()) return { state: 'running', request: known.request }
      lapsed = stored ?? null
    }
    return { state: 'held', key, request, owner, text }
  }

  /**
   * Runs the request of a claim and records its result.
   * @param toRecord the JSON value to record for a result
   * @throws what `run` throws, after the claim was released
   */
  async run<T> ({ key, request, owner, text }: Held, run: () => Promise<T>, toRecord: (result: T) => unknown): Promise<T> {
    let result: T
    try {
      result = await run()
    } catch (error) {
      // If the store is unavailable, the claim lapses.
      await this.#expire(key, text).catch(() => {})
      throw error
    }
    const entry: Entry = { request, by: '', at: this.#now(), done: { value: toRecord(result) } }
    await this.#record(key, owner, JSON.stringify(entry)).catch(() => {})
    return result
  }

  async #record (key: string, owner: string, text: string): Promise<void> {
    await this.#put(key, text)
    if (!this.#records) return
    const now = this.#now()
    const excess = this.#records.add({ key, owner, bytes: Buffer.byteLength(text), until: now + this.#keptMs }, now)
    for (const record of excess) await this.#expire(record.key)
  }

  #put (key: string, value: string, onlyIf?: string | null): Promise<boolean> {
    return this.#store.put({ kind: this.#kind, key, value, until: this.#now() + this.#keptMs }, onlyIf)
  }

  #expire (key: string, onlyIf?: string): Promise<boolean> {
    return this.#store.put({ kind: this.#kind, key, value: '', until: 0 }, onlyIf)
  }
}

interface StoredRecord { readonly key: string, readonly owner: string, readonly bytes: number, readonly until: number }

/** The records of this process, oldest first, with their number and size. */
class RecordList {
  readonly #limits: RunOnceLimits
  readonly #byOwner = new Map<string, Set<StoredRecord>>()
  readonly #all = new Set<StoredRecord>()
  #bytes = 0

  constructor (limits: RunOnceLimits) {
    this.#limits = limits
  }

  /** Adds a record. @returns older records that exceed a limit now */
  add (record: StoredRecord, now: number): StoredRecord[] {
    const { maxRecords, maxBytes, maxRecordsPerOwner } = this.#limits
    for (const old of this.#all) {
      if (old.until > now) break
      this.#delete(old)
    }
    const own = this.#byOwner.get(record.owner) ?? new Set()
    this.#byOwner.set(record.owner, own.add(record))
    this.#all.add(record)
    this.#bytes += record.bytes
    return [
      ...this.#trim(own, () => own.size > maxRecordsPerOwner),
      ...this.#trim(this.#all, () => this.#all.size > maxRecords || this.#bytes > maxBytes)
    ]
  }

  #trim (records: ReadonlySet<StoredRecord>, isOver: () => boolean): StoredRecord[] {
    const trimmed: StoredRecord[] = []
    for (const record of records) {
      if (!isOver()) break
      this.#delete(record)
      trimmed.push(record)
    }
    return trimmed
  }

  #delete (record: StoredRecord) {
    this.#all.delete(record)
    this.#bytes -= record.bytes
    const own = this.#byOwner.get(record.owner)
    if (own?.delete(record) && own.size === 0) this.#byOwner.delete(record.owner)
  }
}
