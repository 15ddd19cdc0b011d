/** Sums of milliseconds are not exact. Without this tolerance a client that waited long enough could be refused. */
const roundingMs = 1e-6

/**
 * A token bucket that holds `burst` tokens and refills at `perSecond`. Its state is the time until it is full again
 * (virtual scheduling, the form of GCRA in ITU-T I.371), so that it needs no timer.
 */
export class TokenBucket {
  readonly #intervalMs: number
  /** The bucket has a token while it is full again within this time. */
  readonly #toleranceMs: number
  #untilFullMs = 0
  #at: number

  constructor ({ perSecond, burst, now }: { perSecond: number, burst: number, now: number }) {
    this.#intervalMs = 1000 / perSecond
    this.#toleranceMs = (burst - 1) * this.#intervalMs + roundingMs
    this.#at = now
  }

  /** When the bucket is full again. */
  get fullAt (): number { return this.#at + this.#untilFullMs }

  /** @returns 0 if there is a token, or the milliseconds until there is one */
  wait (now: number): number {
    // When the clock is set back, no time passes.
    if (now > this.#at) this.#untilFullMs = Math.max(0, this.#untilFullMs - (now - this.#at))
    this.#at = now
    return this.#untilFullMs <= this.#toleranceMs ? 0 : Math.ceil(this.#untilFullMs - this.#toleranceMs)
  }

  /** Takes the token that `wait` has found. */
  spend (): void {
    this.#untilFullMs += this.#intervalMs
  }

  /** Takes one token. @returns 0, or the milliseconds until there is one */
  take (now: number): number {
    const wait = this.wait(now)
    if (wait === 0) this.spend()
    return wait
  }
}

/** A bucket holds `burst` tokens and refills evenly within `windowMs`. */
export interface BucketSettings { readonly burst: number, readonly windowMs: number }

const intervalOf = ({ burst, windowMs }: BucketSettings) => windowMs / burst

/**
 * Token buckets by key. The state of a bucket is the time at which it is full again (the theoretical arrival time of
 * GCRA, ITU-T I.371); full buckets are not kept. Beyond `limit` buckets, those that are full first are dropped.
 */
export class KeyedTokenBuckets {
  readonly #now: () => number
  readonly #limit: number
  readonly #fullAt = new Map<string, number>()

  constructor (now: () => number, limit = 10_000) {
    this.#now = now
    this.#limit = limit
  }

  get size () { return this.#fullAt.size }

  /**
   * Takes one token from each bucket, or none from any.
   * @returns null, or the milliseconds until each bucket has a token
   */
  take (keys: readonly string[], settings: BucketSettings): number | null {
    const now = this.#now()
    const interval = intervalOf(settings)
    const latest = now + settings.windowMs - interval
    const wait = Math.max(...keys.map(key => this.#fullAtOf(key, now))) - latest
    if (wait > roundingMs) return wait
    if (this.#fullAt.size + keys.length > this.#limit) this.#makeRoom(now)
    for (const key of keys) this.#fullAt.set(key, this.#fullAtOf(key, now) + interval)
    return null
  }

  /** Returns tokens that `take` took. */
  putBack (keys: readonly string[], settings: BucketSettings): void {
    const now = this.#now()
    for (const key of keys) this.#keep(key, this.#fullAtOf(key, now) - intervalOf(settings), now)
  }

  /** Empties buckets so far that each has its next token after `ms`. Does not add tokens. */
  drain (keys: readonly string[], settings: BucketSettings, ms: number): void {
    const now = this.#now()
    const fullAt = now + settings.windowMs - intervalOf(settings) + ms
    for (const key of keys) this.#keep(key, Math.max(this.#fullAtOf(key, now), fullAt), now)
  }

  #fullAtOf (key: string, now: number): number {
    return Math.max(now, this.#fullAt.get(key) ?? now)
  }

  #keep (key: string, fullAt: number, now: number) {
    if (fullAt <= now + roundingMs) this.#fullAt.delete(key)
    else this.#fullAt.set(key, fullAt)
  }

  /** Visits every bucket, and therefore leaves a tenth of the limit free, so that the next call is far away. */
  #makeRoom (now: number) {
    for (const [key, fullAt] of this.#fullAt) this.#keep(key, fullAt, now)
    const excess = this.#fullAt.size - Math.floor(this.#limit * 0.9)
    const fullestFirst = [...this.#fullAt].sort(([, a], [, b]) => a - b)
    for (const [key] of fullestFirst.slice(0, Math.max(0, excess))) this.#fullAt.delete(key)
  }
}
