import { monotonicClock, type Clock } from '../../lib/clock.js'
import { ExpiringMap } from '../../lib/expiring-map.js'
import { replicatedKinds, type BucketSettings, type KeyValueEntry, type KeyValueKind, type KeyValueListener, type KeyValueStore } from '../kv-store.js'
import { TokenBuckets } from './token-buckets.js'

export interface MemoryKeyValueStoreOptions {
  clock?: Clock
  /** How many entries of a kind are kept; over it the oldest go. */
  limits?: Partial<Record<KeyValueKind, number>>
  /** How many buckets are kept; over it the fullest go. */
  maxBuckets?: number
}

const defaultLimits: Partial<Record<KeyValueKind, number>> = { ticket: 10_000, known: 1_000 }

/** Keeps shared facts in this process; nothing survives it. Whoever opens it hears of what the others put. */
export class MemoryKeyValueStore implements KeyValueStore {
  readonly #clock: Clock
  readonly #limits: Partial<Record<KeyValueKind, number>>
  readonly #kinds = new Map<KeyValueKind, ExpiringMap<string>>()
  readonly #buckets: TokenBuckets
  readonly #listeners = new Set<KeyValueListener>()

  constructor ({ clock = monotonicClock(), limits, maxBuckets }: MemoryKeyValueStoreOptions = {}) {
    this.#clock = clock
    this.#limits = { ...defaultLimits, ...limits }
    this.#buckets = new TokenBuckets(clock, maxBuckets)
  }

  /** Number of buckets that are not full. */
  get bucketCount () { return this.#buckets.size }

  async open (listener: KeyValueListener): Promise<readonly KeyValueEntry[]> {
    this.#listeners.add(listener)
    return [...replicatedKinds].flatMap(kind => this.#entries(kind))
  }

  async close (): Promise<void> {
    this.#listeners.clear()
  }

  async get (kind: KeyValueKind, key: string): Promise<string | undefined> {
    return this.#map(kind).get(key)
  }

  async put ({ kind, key, value, until }: KeyValueEntry & { value: string }, onlyIf?: string | null): Promise<boolean> {
    const map = this.#map(kind)
    if (onlyIf !== undefined && (map.get(key) ?? null) !== onlyIf) return false
    if (until <= this.#clock()) this.#remove(kind, key)
    else {
      map.set(key, value, until)
      this.#tell({ kind, key, value, until })
    }
    return true
  }

  async take (kind: KeyValueKind, key: string): Promise<string | undefined> {
    return this.#remove(kind, key)
  }

  async list (kind: KeyValueKind): Promise<readonly KeyValueEntry[]> {
    return this.#entries(kind)
  }

  async takeTokens (buckets: readonly string[], settings: BucketSettings): Promise<number | null> {
    return this.#buckets.draw(buckets, settings)
  }

  async returnTokens (buckets: readonly string[], settings: BucketSettings): Promise<void> {
    this.#buckets.giveBack(buckets, settings)
  }

  #remove (kind: KeyValueKind, key: string): string | undefined {
    const value = this.#map(kind).take(key)
    if (value !== undefined) this.#tell({ kind, key, value: null, until: this.#clock() })
    return value
  }

  #tell (entry: KeyValueEntry) {
    if (!replicatedKinds.has(entry.kind)) return
    for (const listener of this.#listeners) listener.changed(entry)
  }

  #entries (kind: KeyValueKind): KeyValueEntry[] {
    const entries = Array.from(this.#map(kind).entries(), ([key, { value, until }]) => ({ kind, key, value, until }))
    return entries.sort((a, b) => a.until - b.until)
  }

  #map (kind: KeyValueKind): ExpiringMap<string> {
    const known = this.#kinds.get(kind)
    if (known) return known
    const map = new ExpiringMap<string>(this.#clock, this.#limits[kind])
    this.#kinds.set(kind, map)
    return map
  }
}
