import { isProblem, tooMany } from '../errors.js'
import { addressKey } from './address.js'
import type { Clock } from '../clock.js'

export interface AttemptsOptions {
  /** Failures that an address or account may have at once. */
  burst: number
  /** Milliseconds in which a full burst comes back. */
  windowMs: number
  /** Epoch milliseconds. */
  now: Clock
  /** Buckets that are kept; over it those with the fewest failures go. */
  maxBuckets?: number
  /** Pairs of address and account that are remembered for a success. */
  maxKnown?: number
  /** Hears when an address or account has no tries left, and not again before it had one. */
  onLockout?: (target: AttemptTarget, retryAfterMs: number) => void
}

export interface AttemptTarget {
  address: string
  /** Whose secret is guessed at; undefined where a guess is not at anybody's in particular. */
  account?: string
  /** What is guessed: kinds do not share buckets. */
  kind: 'login' | 'pin' | 'key'
}

interface Bucket { tokens: number, at: number, isTold?: boolean }
interface Taken { key: string, bucket: Bucket }

/** Refills are fractions: what is short of a whole by less is whole, or a client that waits exactly is refused. */
const rounding = 1e-9

function pairOf ({ kind, address, account }: AttemptTarget): string {
  return `${kind} ${addressKey(address)} ${account}`
}

function costs (error: unknown): boolean {
  return isProblem(error) && (error.statusCode === 401 || error.statusCode === 403)
}

/**
 * Limits failed tries by token buckets, one per address and one per account. An address that succeeded before has a
 * bucket of its own for that account, so that strangers cannot lock its owner out.
 */
export class Attempts {
  readonly #burst: number
  readonly #windowMs: number
  readonly #now: Clock
  readonly #maxBuckets: number
  readonly #maxKnown: number
  readonly #buckets = new Map<string, Bucket>()
  readonly #known = new Set<string>()
  readonly #onLockout: AttemptsOptions['onLockout']

  constructor ({ burst, windowMs, now, maxBuckets = 10_000, maxKnown = 1_000, onLockout }: AttemptsOptions) {
    this.#burst = burst
    this.#windowMs = windowMs
    this.#now = now
    this.#maxBuckets = maxBuckets
    this.#maxKnown = maxKnown
    this.#onLockout = onLockout
  }

  /** Number of buckets that are kept. */
  get size () { return this.#buckets.size }

  /**
   * Runs `check` and resolves with its result. A check that throws a problem of 401 or 403 has cost one try; the try is
   * taken before the check runs, so that tries at the same time count too.
   * @throws rate-limit-exceeded, without running `check`, when no try is left; whatever `check` throws.
   */
  async attempt<T> (target: AttemptTarget, check: () => T | Promise<T>): Promise<T> {
    const taken = this.#reserve(target)
    try {
      const result = check()
      // Not awaited when there is nothing to wait for: a fleet that shares an address must not run into itself.
      const value = result instanceof Promise ? await result : result
      this.#giveBack(taken)
      this.#remember(target)
      return value
    } catch (error) {
      if (!costs(error)) this.#giveBack(taken)
      throw error
    }
  }

  #keysOf (target: AttemptTarget): string[] {
    const address = `address ${target.kind} ${addressKey(target.address)}`
    if (target.account === undefined) return [address]
    const pair = pairOf(target)
    return [address, this.#known.has(pair) ? `pair ${pair}` : `account ${target.kind} ${target.account}`]
  }

  /** All or nothing, and in one turn of the event loop. */
  #reserve (target: AttemptTarget): Taken[] {
    const keys = this.#keysOf(target)
    if (this.#buckets.size + keys.length > this.#maxBuckets) this.#makeRoom()
    const taken = keys.map(key => ({ key, bucket: this.#bucket(key) }))
    const least = Math.min(...taken.map(({ bucket }) => bucket.tokens))
    if (least < 1 - rounding) this.#refuse(target, taken, (1 - least) * this.#windowMs / this.#burst)
    for (const { bucket } of taken) {
      bucket.tokens--
      bucket.isTold = false
    }
    return taken
  }

  #refuse (target: AttemptTarget, taken: Taken[], retryAfterMs: number): never {
    const empty = taken.filter(({ bucket }) => bucket.tokens < 1 - rounding)
    if (empty.some(({ bucket }) => !bucket.isTold)) this.#onLockout?.(target, retryAfterMs)
    for (const { bucket } of empty) bucket.isTold = true
    throw tooMany('rate-limit-exceeded', 'Too many failed attempts', retryAfterMs)
  }

  #giveBack (taken: Taken[]) {
    for (const { key, bucket } of taken) {
      bucket.tokens = Math.min(this.#burst, bucket.tokens + 1)
      if (this.#isFull(bucket)) this.#buckets.delete(key)
    }
  }

  #bucket (key: string): Bucket {
    const bucket = this.#buckets.get(key) ?? { tokens: this.#burst, at: this.#now() }
    this.#refill(bucket)
    this.#buckets.set(key, bucket)
    return bucket
  }

  #refill (bucket: Bucket) {
    const now = this.#now()
    const passed = Math.max(0, now - bucket.at)
    bucket.tokens = Math.min(this.#burst, bucket.tokens + passed * this.#burst / this.#windowMs)
    bucket.at = now
  }

  #isFull (bucket: Bucket): boolean {
    return bucket.tokens >= this.#burst - rounding
  }

  /** Goes through all buckets, and therefore leaves a tenth of them free: the next of these is far away. */
  #makeRoom () {
    for (const bucket of this.#buckets.values()) this.#refill(bucket)
    const fullestFirst = [...this.#buckets].sort(([, a], [, b]) => b.tokens - a.tokens)
    const excess = this.#buckets.size - Math.floor(this.#maxBuckets * 0.9)
    for (const [index, [key, bucket]] of fullestFirst.entries()) {
      if (index < excess || this.#isFull(bucket)) this.#buckets.delete(key)
    }
  }

  #remember (target: AttemptTarget) {
    if (target.account === undefined) return
    const pair = pairOf(target)
    this.#known.delete(pair)
    this.#known.add(pair)
    if (this.#known.size > this.#maxKnown) this.#known.delete(this.#known.values().next().value!)
  }
}
