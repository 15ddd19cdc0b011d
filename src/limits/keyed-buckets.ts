import type { Clock } from '../lib/clock.js'
import { ExpiringMap } from '../lib/expiring-map.js'
import { TokenBucket } from '../lib/token-bucket.js'

export interface BucketRate { perSecond: number, burst: number }

/** A bucket that connections share, for as long as one of them is there. */
export interface SharedBucket {
  readonly key: string
  readonly bucket: TokenBucket
  users: number
}

/** Buckets that nobody uses and that are not full again; those over it are forgotten, the oldest first. */
const maxIdle = 100_000

/** A token bucket for each key. One that nobody uses any more is kept until it would be full again, so that a new connection is no new start. */
export class SharedBuckets {
  readonly #rate: BucketRate
  readonly #now: Clock
  readonly #used = new Map<string, SharedBucket>()
  readonly #idle: ExpiringMap<TokenBucket>

  constructor (rate: BucketRate, now: Clock) {
    this.#rate = rate
    this.#now = now
    this.#idle = new ExpiringMap(now, maxIdle)
  }

  get size (): number { return this.#used.size + this.#idle.size }

  join (key: string): SharedBucket {
    const shared = this.#used.get(key) ?? { key, bucket: this.#idle.take(key) ?? new TokenBucket({ ...this.#rate, now: this.#now() }), users: 0 }
    shared.users++
    this.#used.set(key, shared)
    return shared
  }

  leave (shared: SharedBucket): void {
    shared.users--
    if (shared.users > 0) return
    this.#used.delete(shared.key)
    if (shared.bucket.fullAt > this.#now()) this.#idle.set(shared.key, shared.bucket, shared.bucket.fullAt)
  }
}
