import type { Clock } from '../lib/clock.js'
import { ExpiringMap } from '../lib/expiring-map.js'
import { TokenBucket } from '../lib/token-bucket.js'

export interface BucketRate { perSecond: number, burst: number }

/** A bucket that several connections share. */
export interface SharedBucket {
  readonly key: string
  readonly bucket: TokenBucket
  users: number
}

/** Most unused buckets that are kept; beyond it the oldest are dropped. */
const maxUnused = 100_000

/**
 * One token bucket per key. An unused bucket is kept until it would be full again, so that a client gains nothing by
 * reconnecting.
 */
export class SharedBuckets {
  readonly #rate: BucketRate
  readonly #now: Clock
  readonly #used = new Map<string, SharedBucket>()
  readonly #unused: ExpiringMap<TokenBucket>

  constructor (rate: BucketRate, now: Clock) {
    this.#rate = rate
    this.#now = now
    this.#unused = new ExpiringMap(now, maxUnused)
  }

  get size (): number { return this.#used.size + this.#unused.size }

  /** Returns the bucket of a key to a new user, which must call `leave` in the end. */
  join (key: string): SharedBucket {
    const shared = this.#used.get(key) ?? { key, bucket: this.#bucketOf(key), users: 0 }
    shared.users++
    this.#used.set(key, shared)
    return shared
  }

  leave (shared: SharedBucket): void {
    shared.users--
    if (shared.users > 0) return
    this.#used.delete(shared.key)
    if (shared.bucket.fullAt > this.#now()) this.#unused.set(shared.key, shared.bucket, shared.bucket.fullAt)
  }

  /** Takes one token for a single request. @returns 0, or the milliseconds until there is one */
  take (key: string): number {
    const shared = this.join(key)
    const waitMs = shared.bucket.take(this.#now())
    this.leave(shared)
    return waitMs
  }

  #bucketOf (key: string): TokenBucket {
    return this.#unused.take(key) ?? new TokenBucket({ ...this.#rate, now: this.#now() })
  }
}
