import { monotonicClock, type Clock } from '../../lib/clock.js'
import { ExpiringMap } from '../../lib/expiring-map.js'
import { replicatedKinds, type BucketSettings, type StateEntry, type StateKind, type StateListener, type StateStore } from '../kv-store.js'
import { TokenBuckets } from './token-buckets.js'

export interface MemoryStateOptions {
  clock?: Clock
  /** How many entries of a kind are kept; over it the oldest go. */
  limits?: Partial<Record<StateKind, number>>
  /** How many buckets are kept; over it the fullest go. */
  maxBuckets?: number
}

const defaultLimits: Partial<Record<StateKind, number>> = { ticket: 10_000, known: 1_000 }

/** Keeps shared facts in this process; nothing survives it. Whoever opens it hears of what the others put. */
export class MemoryState implements StateStore {
  readonly #clock: Clock
  readonly #limits: Partial<Record<StateKind, number>>
  readonly #kinds = new Map<StateKind, ExpiringMap<string>>()
  readonly #buckets: TokenBuckets
  readonly #listeners = new Set<StateListener>()

  constructor ({ clock = monotonicClock(), limits, maxBuckets }: MemoryStateOptions = {}) {
    this.#clock = clock
    this.#limits = { ...defaultLimits, ...limits }
    this.#buckets = new TokenBuckets(clock, maxBuckets)
  }

  /** Number of buckets that are not full. */
  get bucketCount () { return this.#buckets.size }

  async open (listener: StateListener): Promise<readonly StateEntry[]> {
    this.#listeners.add(listener)
    return [...replicatedKinds].flatMap(kind => this.#entries(kind))
  }

  async close (): Promise<void> {
    this.#listeners.clear()
  }

  async get (kind: StateKind, key: string): Promise<string | undefined> {
    return this.#map(kind).get(key)
  }

  async put ({ kind, key, value, until }: StateEntry & { value: string }, onlyIf?: string | null): Promise<boolean> {
    const map = this.#map(kind)
    if (onlyIf !== undefined && (map.get(key) ?? null) !== onlyIf) return false
    if (until <= this.#clock()) this.#remove(kind, key)
    else {
      map.set(key, value, until)
      this.#tell({ kind, key, value, until })
    }
    return true
  }

  async take (kind: StateKind, key: string): Promise<string | undefined> {
    return this.#remove(kind, key)
  }

  async list (kind: StateKind): Promise<readonly StateEntry[]> {
    return this.#entries(kind)
  }

  async draw (buckets: readonly string[], settings: BucketSettings): Promise<number | null> {
    return this.#buckets.draw(buckets, settings)
  }

  async giveBack (buckets: readonly string[], settings: BucketSettings): Promise<void> {
    this.#buckets.giveBack(buckets, settings)
  }

  #remove (kind: StateKind, key: string): string | undefined {
    const value = this.#map(kind).take(key)
    if (value !== undefined) this.#tell({ kind, key, value: null, until: this.#clock() })
    return value
  }

  #tell (entry: StateEntry) {
    if (!replicatedKinds.has(entry.kind)) return
    for (const listener of this.#listeners) listener.changed(entry)
  }

  #entries (kind: StateKind): StateEntry[] {
    const entries = Array.from(this.#map(kind).entries(), ([key, { value, until }]) => ({ kind, key, value, until }))
    return entries.sort((a, b) => a.until - b.until)
  }

  #map (kind: StateKind): ExpiringMap<string> {
    const known = this.#kinds.get(kind)
    if (known) return known
    const map = new ExpiringMap<string>(this.#clock, this.#limits[kind])
    this.#kinds.set(kind, map)
    return map
  }
}
