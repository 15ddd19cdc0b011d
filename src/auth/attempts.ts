import { ExpiringMap } from '../lib/expiring-map.js'
import { isProblem, tooMany } from '../errors.js'
import { KeyedTokenBuckets } from '../lib/token-bucket.js'
import { addressKey } from '../lib/address.js'
import type { Clock } from '../lib/clock.js'
import type { BucketSettings, KeyValueStore } from '../storage/kv-store.js'

export interface AttemptsOptions extends BucketSettings {
  state: KeyValueStore
  /** Epoch milliseconds. */
  now: Clock
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

const day = 86_400_000
/** How long an address is remembered for a success: a PIN ends with its session. */
const knownForMs = { login: 30 * day, pin: day, key: day }

function pairOf ({ kind, address, account }: AttemptTarget): string {
  return `${kind} ${addressKey(address)} ${account}`
}

const addressBucket = ({ kind, address }: AttemptTarget) => `address ${kind} ${addressKey(address)}`

function costs (error: unknown): boolean {
  return isProblem(error) && (error.statusCode === 401 || error.statusCode === 403)
}

/**
 * Limits failed tries by token buckets that all processes share, one per address and one per account. An address that
 * succeeded before has a bucket of its own for that account, so that strangers cannot lock its owner out.
 */
export class Attempts {
  readonly #state: KeyValueStore
  readonly #settings: BucketSettings
  readonly #now: Clock
  readonly #own: KeyedTokenBuckets
  readonly #told: ExpiringMap<true>
  readonly #onLockout: AttemptsOptions['onLockout']

  constructor ({ state, burst, windowMs, now, onLockout }: AttemptsOptions) {
    this.#state = state
    this.#settings = { burst, windowMs }
    this.#now = now
    this.#own = new KeyedTokenBuckets(now)
    this.#told = new ExpiringMap(now, 10_000)
    this.#onLockout = onLockout
  }

  /**
   * Runs `check` and resolves with its result. A check that throws a problem of 401 or 403 has cost one try; the try is
   * taken before the check runs, so that tries at the same time count too.
   * @throws rate-limit-exceeded, without running `check`, when no try is left; whatever `check` throws.
   */
  async attempt<T> (target: AttemptTarget, check: () => T | Promise<T>): Promise<T> {
    const buckets = await this.#bucketsOf(target)
    this.#pass(target, buckets, await this.#state.takeTokens(buckets, this.#settings))
    let value: T
    try {
      value = await check()
    } catch (error) {
      if (!costs(error)) await this.#state.returnTokens(buckets, this.#settings)
      throw error
    }
    await this.#state.returnTokens(buckets, this.#settings)
    await this.#remember(target)
    return value
  }

  /**
   * The same for a check that does not wait: a success asks nobody, so that a fleet that shares an address neither runs
   * into itself nor waits. Every process lets a burst of tries pass at once; what failed is drawn from what all share,
   * and where nothing is left there, nothing is left here. Somebody who guesses at several processes therefore gets a
   * burst from each once, and after that one guess each for one that all share.
   */
  async attemptNow<T> (target: Omit<AttemptTarget, 'account'>, check: () => T): Promise<T> {
    const buckets = [addressBucket(target)]
    this.#pass(target, buckets, this.#own.take(buckets, this.#settings))
    try {
      const value = check()
      this.#own.putBack(buckets, this.#settings)
      return value
    } catch (error) {
      if (costs(error)) await this.#share(target, buckets)
      else this.#own.putBack(buckets, this.#settings)
      throw error
    }
  }

  async #share (target: AttemptTarget, buckets: readonly string[]): Promise<void> {
    const wait = await this.#state.takeTokens(buckets, this.#settings)
    if (wait !== null) this.#own.drain(buckets, this.#settings, wait)
    this.#pass(target, buckets, wait)
  }

  async #bucketsOf (target: AttemptTarget): Promise<string[]> {
    const address = addressBucket(target)
    if (target.account === undefined) return [address]
    const pair = pairOf(target)
    const isKnown = await this.#state.get('known', pair) !== undefined
    return [address, isKnown ? `pair ${pair}` : `account ${target.kind} ${target.account}`]
  }

  /** @throws rate-limit-exceeded unless there was a try to take. */
  #pass (target: AttemptTarget, buckets: readonly string[], retryAfterMs: number | null) {
    if (retryAfterMs === null) return
    const isTold = buckets.some(bucket => this.#told.get(bucket))
    for (const bucket of buckets) this.#told.set(bucket, true, this.#now() + retryAfterMs)
    if (!isTold) this.#onLockout?.(target, retryAfterMs)
    throw tooMany('rate-limit-exceeded', 'Too many failed attempts', retryAfterMs)
  }

  async #remember (target: AttemptTarget): Promise<void> {
    if (target.account === undefined) return
    await this.#state.put({ kind: 'known', key: pairOf(target), value: '', until: this.#now() + knownForMs[target.kind] })
  }
}
