import { ExpiringMap } from '../lib/expiring-map.js'
import { TokenBucket } from '../lib/token-bucket.js'
import type { Clock } from '../lib/clock.js'

export interface Quota {
  /** Calls at once. */
  burst: number
  /** Calls a minute for long. */
  perMinute: number
}

const maxKeys = 100_000

/** A token bucket for each key, forgotten once it would be full again. */
export class Quotas {
  readonly #burst: number
  readonly #perMinute: number
  readonly #now: Clock
  readonly #buckets: ExpiringMap<TokenBucket>

  constructor ({ burst, perMinute }: Quota, now: Clock) {
    this.#burst = burst
    this.#perMinute = perMinute
    this.#now = now
    this.#buckets = new ExpiringMap(now, maxKeys)
  }

  /** @returns 0, or the milliseconds until this key may again */
  take (key: string): number {
    const now = this.#now()
    const perSecond = this.#perMinute / 60
    const bucket = this.#buckets.get(key) ?? new TokenBucket({ perSecond, burst: this.#burst, now })
    this.#buckets.set(key, bucket, now + Math.ceil(this.#burst / perSecond * 1000))
    return bucket.take(now)
  }
}
