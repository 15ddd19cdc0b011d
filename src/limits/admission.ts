import type { Clock } from '../lib/clock.js'
import { problem, type ProblemError, retryAfter } from '../errors.js'
import { TokenBucket } from '../lib/token-bucket.js'

const maxRetryMs = 30_000
/** `Retry-After` is in whole seconds: those of one second are spread within the next. */
const spreadMs = 1_000

/**
 * Lets so many through in a second, so that a fleet that comes back at once does not stop everything else. Whoever is
 * refused is told when there is room: each is given the turn after the one before it.
 */
export class Admission {
  readonly #perSecond: number
  readonly #bucket: TokenBucket
  readonly #now: Clock
  /** When the last turn is that was given away. */
  #turn = 0

  constructor ({ perSecond, burst, now }: { perSecond: number, burst: number, now: Clock }) {
    this.#perSecond = perSecond
    this.#bucket = new TokenBucket({ perSecond, burst, now: now() })
    this.#now = now
  }

  /** @returns 0 to come in, or the milliseconds after which to try again */
  take (): number {
    const now = this.#now()
    const wait = this.#bucket.take(now)
    if (wait === 0) return 0
    this.#turn = Math.min(Math.max(this.#turn, now + wait) + 1000 / this.#perSecond, now + maxRetryMs)
    return this.#turn - now + spreadMs * Math.random()
  }

  /** Why another one is refused; undefined lets it in. */
  rejection (type: 'rate-limit-exceeded' | 'too-many-connections', detail: string): ProblemError | undefined {
    const wait = this.take()
    return wait === 0 ? undefined : problem(type, detail, retryAfter(wait))
  }
}
