import type { Clock } from './clock.js'

interface Entry<V> { value: V, until: number }

/**
 * A map whose entries expire (epoch milliseconds). Expired entries are never returned. They are removed without a timer, by
 * a sweep whenever the map has doubled since the last one. Beyond `limit` entries the oldest are removed.
 */
export class ExpiringMap<V> {
  readonly #now: Clock
  readonly #limit: number
  readonly #entries = new Map<string, Entry<V>>()
  #sweepAt = 64

  constructor (now: Clock, limit = Infinity) {
    this.#now = now
    this.#limit = limit
  }

  get size () { return this.#entries.size }

  get (key: string): V | undefined {
    const entry = this.#entries.get(key)
    return entry && entry.until > this.#now() ? entry.value : undefined
  }

  set (key: string, value: V, until: number) {
    this.#entries.delete(key)
    this.#entries.set(key, { value, until })
    if (this.#entries.size >= this.#sweepAt) this.sweep()
    if (this.#entries.size > this.#limit) deleteOldest(this.#entries)
  }

  /** Removes an entry. @returns its value, unless it had expired */
  take (key: string): V | undefined {
    const value = this.get(key)
    this.#entries.delete(key)
    return value
  }

  /** The entries that have not expired, oldest first. */
  * entries (): Generator<[key: string, entry: Readonly<Entry<V>>]> {
    const now = this.#now()
    for (const [key, entry] of this.#entries) if (entry.until > now) yield [key, entry]
  }

  sweep () {
    const now = this.#now()
    for (const [key, { until }] of this.#entries) {
      if (until <= now) this.#entries.delete(key)
    }
    this.#sweepAt = Math.max(64, this.#entries.size * 2)
  }
}

/** Deletes the entry that was added first. */
export function deleteOldest<K> (map: Map<K, unknown>): void {
  const { done, value } = map.keys().next()
  if (!done) map.delete(value)
}
