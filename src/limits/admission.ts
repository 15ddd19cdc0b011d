import { problem, retryAfter, type ProblemError } from '../errors.js'
import type { Clock } from '../lib/clock.js'
import { TokenBucket } from '../lib/token-bucket.js'

const maxRetryMs = 30_000
/** `Retry-After` is in whole seconds: clients with the same value are spread within the following second. */
const spreadMs = 1_000

/**
 * Limits how many clients per second register or connect, so that a fleet that reconnects at once does not stall the
 * registry. Refused clients are queued in time: each is asked to retry one interval after the one before it.
 */
export class Admission {
  readonly #perSecond: number
  readonly #bucket: TokenBucket
  readonly #now: Clock
  /** The retry time of the last refused client. */
  #lastRetryAt = 0

  constructor ({ perSecond, burst, now }: { perSecond: number, burst: number, now: Clock }) {
    this.#perSecond = perSecond
    this.#bucket = new TokenBucket({ perSecond, burst, now: now() })
    this.#now = now
  }

  /** @returns 0 if the client is admitted, or the milliseconds after which it should retry */
  take (): number {
    const now = this.#now()
    const waitMs = this.#bucket.take(now)
    if (waitMs === 0) return 0
    this.#lastRetryAt = Math.min(Math.max(this.#lastRetryAt, now + waitMs) + 1000 / this.#perSecond, now + maxRetryMs)
    return this.#lastRetryAt - now + spreadMs * Math.random()
  }

  /** Admits a client. @returns undefined, or the error with which it is rejected */
  rejection (type: 'rate-limit-exceeded' | 'too-many-connections', detail: string): ProblemError | undefined {
    const waitMs = this.take()
    return waitMs === 0 ? undefined : problem(type, detail, retryAfter(waitMs))
  }
}
