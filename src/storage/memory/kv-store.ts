import { monotonicClock, type Clock } from '../../lib/clock.js'
import { Emitter } from '../../lib/emitter.js'
import { ExpiringMap } from '../../lib/expiring-map.js'
import { KeyedTokenBuckets, type BucketSettings } from '../../lib/token-bucket.js'
import { replicatedKinds, type KeyValueEntry, type KeyValueKind, type KeyValueListener, type KeyValueStore } from '../kv-store.js'

export interface MemoryKeyValueStoreOptions {
  clock?: Clock
  /** The number of entries of a kind that are kept; the oldest are dropped first. */
  limits?: Partial<Record<KeyValueKind, number>>
  /** The number of token buckets that are kept; the fullest are dropped first. */
  maxBuckets?: number
}

const defaultLimits: Partial<Record<KeyValueKind, number>> = { ticket: 10_000, known: 1_000 }

/** Keeps entries in the memory of this process. Every listener that opens the store receives all changes. */
export class MemoryKeyValueStore implements KeyValueStore {
  readonly #clock: Clock
  readonly #limits: Partial<Record<KeyValueKind, number>>
  readonly #kinds = new Map<KeyValueKind, ExpiringMap<string>>()
  readonly #buckets: KeyedTokenBuckets
  #events = new Emitter<{ changed: [entry: KeyValueEntry] }>()

  constructor ({ clock = monotonicClock(), limits, maxBuckets }: MemoryKeyValueStoreOptions = {}) {
    this.#clock = clock
    this.#limits = { ...defaultLimits, ...limits }
    this.#buckets = new KeyedTokenBuckets(clock, maxBuckets)
  }

  /** The number of token buckets that are not full. */
  get bucketCount () { return this.#buckets.size }

  async open (listener: KeyValueListener): Promise<readonly KeyValueEntry[]> {
    this.#events.on('changed', entry => { listener.changed(entry) })
    return [...replicatedKinds].flatMap(kind => this.#entries(kind))
  }

  async close (): Promise<void> {
    this.#events = new Emitter()
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
      this.#changed({ kind, key, value, until })
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
    return this.#buckets.take(buckets, settings)
  }

  async returnTokens (buckets: readonly string[], settings: BucketSettings): Promise<void> {
    this.#buckets.putBack(buckets, settings)
  }

  #remove (kind: KeyValueKind, key: string): string | undefined {
    const value = this.#map(kind).take(key)
    if (value !== undefined) this.#changed({ kind, key, value: null, until: this.#clock() })
    return value
  }

  #changed (entry: KeyValueEntry) {
    if (replicatedKinds.has(entry.kind)) this.#events.emit('changed', entry)
  }

  #entries (kind: KeyValueKind): KeyValueEntry[] {
    const entries = Array.from(this.#map(kind).entries(), ([key, { value, until }]) => ({ kind, key, value, until }))
    return entries.sort((a, b) => a.until - b.until)
  }

  #map (kind: KeyValueKind): ExpiringMap<string> {
    const existing = this.#kinds.get(kind)
    if (existing) return existing
    const map = new ExpiringMap<string>(this.#clock, this.#limits[kind])
    this.#kinds.set(kind, map)
    return map
  }
}
