import type { Clock } from './clock.js'

interface Entry<V> { value: V, until: number }

/**
 * A map whose entries end at a time (epoch milliseconds). What has ended is never returned, and is dropped without a
 * timer: by a sweep whenever the map has doubled since the last one. Over `limit` entries the oldest go.
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
    if (this.#entries.size > this.#limit) this.#entries.delete(this.#entries.keys().next().value!)
  }

  /** Removes an entry and returns its value, if it had not ended. */
  take (key: string): V | undefined {
    const value = this.get(key)
    this.#entries.delete(key)
    return value
  }

  /** What has not ended, oldest first. */
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
