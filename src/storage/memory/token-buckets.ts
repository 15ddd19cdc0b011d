import type { Clock } from '../../lib/clock.js'
import type { BucketSettings } from '../kv-store.js'

interface Bucket { tokens: number, at: number, settings: BucketSettings }

/** Refills are fractions: what is short of a whole by less is whole, or a client that waits exactly is refused. */
const rounding = 1e-9

const perMs = ({ burst, windowMs }: BucketSettings) => burst / windowMs

/** Token buckets by name, which fill up evenly. What is full is not kept; over `limit` those with the most tokens go. */
export class TokenBuckets {
  readonly #now: Clock
  readonly #limit: number
  readonly #buckets = new Map<string, Bucket>()

  constructor (now: Clock, limit = 10_000) {
    this.#now = now
    this.#limit = limit
  }

  get size () { return this.#buckets.size }

  /** Takes one token of each, or none of any. @returns null, or milliseconds until there is one in each */
  draw (keys: readonly string[], settings: BucketSettings): number | null {
    const buckets = keys.map(key => this.#filled(key, settings))
    const least = Math.min(...buckets.map(({ tokens }) => tokens))
    if (least < 1 - rounding) return (1 - least) / perMs(settings)
    if (this.#buckets.size + keys.length > this.#limit) this.#makeRoom()
    for (const [index, key] of keys.entries()) this.#buckets.set(key, { ...buckets[index]!, tokens: buckets[index]!.tokens - 1 })
    return null
  }

  /** Puts back what `draw` took. */
  giveBack (keys: readonly string[], settings: BucketSettings): void {
    for (const key of keys) {
      const bucket = this.#filled(key, settings)
      this.#keep(key, { ...bucket, tokens: Math.min(settings.burst, bucket.tokens + 1) })
    }
  }

  /** Leaves no more in each than makes it one whole token after `ms`. */
  drain (keys: readonly string[], settings: BucketSettings, ms: number): void {
    for (const key of keys) {
      const bucket = this.#filled(key, settings)
      this.#keep(key, { ...bucket, tokens: Math.min(bucket.tokens, 1 - ms * perMs(settings)) })
    }
  }

  #filled (key: string, settings: BucketSettings): Bucket {
    const at = this.#now()
    const bucket = this.#buckets.get(key)
    if (!bucket) return { tokens: settings.burst, at, settings }
    const passed = Math.max(0, at - bucket.at)
    return { tokens: Math.min(settings.burst, bucket.tokens + passed * perMs(settings)), at, settings }
  }

  #keep (key: string, bucket: Bucket) {
    if (isFull(bucket)) this.#buckets.delete(key)
    else this.#buckets.set(key, bucket)
  }

  /** Goes through all buckets, and therefore leaves a tenth of them free: the next of these is far away. */
  #makeRoom () {
    for (const [key, { settings }] of this.#buckets) this.#keep(key, this.#filled(key, settings))
    const fullestFirst = [...this.#buckets].sort(([, a], [, b]) => b.tokens - a.tokens)
    const excess = this.#buckets.size - Math.floor(this.#limit * 0.9)
    for (const [key] of fullestFirst.slice(0, Math.max(0, excess))) this.#buckets.delete(key)
  }
}

function isFull ({ tokens, settings }: Bucket): boolean {
  return tokens >= settings.burst - rounding
}
