import { isProblem, tooMany } from '../errors.js'
import { addressKey } from '../lib/address.js'
import type { Clock } from '../lib/clock.js'
import { Emitter } from '../lib/emitter.js'
import { ExpiringMap } from '../lib/expiring-map.js'
import { KeyedTokenBuckets, type BucketSettings } from '../lib/token-bucket.js'
import type { KeyValueStore } from '../storage/kv-store.js'

/** Allows `burst` failed attempts at once; the bucket refills completely in `windowMs`. */
export interface AttemptsOptions extends BucketSettings {
  kv: KeyValueStore
  /** Epoch milliseconds. */
  now: Clock
}

export interface AttemptTarget {
  /** The client's address. */
  address: string
  /** The account whose secret is checked; undefined if the secret does not belong to a named account. */
  account?: string
  /** The kind of secret. Kinds have separate limits. */
  kind: 'login' | 'pin' | 'key'
}

interface AttemptEvents {
  /** An address or account has no attempts left. Emitted once until it has one again. */
  lockout: [target: AttemptTarget, retryAfterMs: number]
}

const dayMs = 86_400_000
/** How long the address of a successful attempt is known. A PIN ends with its session. */
const knownForMs = { login: 30 * dayMs, pin: dayMs, key: dayMs }

function pairOf ({ kind, address, account }: AttemptTarget): string {
  return `${kind} ${addressKey(address)} ${account}`
}

const addressBucket = ({ kind, address }: AttemptTarget) => `address ${kind} ${addressKey(address)}`

function isFailedAttempt (error: unknown): boolean {
  return isProblem(error) && (error.statusCode === 401 || error.statusCode === 403)
}

/**
 * Limits failed attempts to guess a secret, with token buckets that all processes share: one per address and one per
 * account. An address that succeeded before has a bucket of its own for that account, so that other clients cannot lock
 * out its owner.
 */
export class Attempts extends Emitter<AttemptEvents> {
  readonly #kv: KeyValueStore
  readonly #settings: BucketSettings
  readonly #now: Clock
  /** The buckets of this process, for `attemptLocally`. */
  readonly #local: KeyedTokenBuckets
  /** Buckets whose lockout was emitted. */
  readonly #lockedOut: ExpiringMap<true>

  constructor ({ kv, burst, windowMs, now }: AttemptsOptions) {
    super()
    this.#kv = kv
    this.#settings = { burst, windowMs }
    this.#now = now
    this.#local = new KeyedTokenBuckets(now)
    this.#lockedOut = new ExpiringMap(now, 10_000)
  }

  /**
   * Runs `check`. If it throws a problem with status 401 or 403, it has cost one attempt. The attempt is taken before
   * the check and returned after a success, so that concurrent attempts count.
   * @throws rate-limit-exceeded, without running `check`, if no attempt is left; whatever `check` throws
   */
  async attempt<T> (target: AttemptTarget, check: () => T | Promise<T>): Promise<T> {
    const buckets = await this.#bucketsOf(target)
    this.#assertTaken(target, buckets, await this.#kv.takeTokens(buckets, this.#settings))
    let value: T
    try {
      value = await check()
    } catch (error) {
      if (!isFailedAttempt(error)) await this.#kv.returnTokens(buckets, this.#settings)
      throw error
    }
    await this.#kv.returnTokens(buckets, this.#settings)
    await this.#remember(target)
    return value
  }

  /**
   * Like `attempt`, for a synchronous check of a secret without an account. A success does not access the store, so that
   * a fleet behind one address is neither limited nor delayed. Each process allows a burst of attempts; failed attempts
   * are also taken from the shared bucket, and when that is empty, so is the local one. A client that guesses at several
   * processes therefore gets one burst at each, and after that the shared rate.
   */
  async attemptLocally<T> (target: Omit<AttemptTarget, 'account'>, check: () => T): Promise<T> {
    const buckets = [addressBucket(target)]
    this.#assertTaken(target, buckets, this.#local.take(buckets, this.#settings))
    try {
      const value = check()
      this.#local.putBack(buckets, this.#settings)
      return value
    } catch (error) {
      if (isFailedAttempt(error)) await this.#takeShared(target, buckets)
      else this.#local.putBack(buckets, this.#settings)
      throw error
    }
  }

  async #takeShared (target: AttemptTarget, buckets: readonly string[]): Promise<void> {
    const waitMs = await this.#kv.takeTokens(buckets, this.#settings)
    if (waitMs !== null) this.#local.drain(buckets, this.#settings, waitMs)
    this.#assertTaken(target, buckets, waitMs)
  }

  async #bucketsOf (target: AttemptTarget): Promise<string[]> {
    const address = addressBucket(target)
    if (target.account === undefined) return [address]
    const pair = pairOf(target)
    const isKnown = await this.#kv.get('known', pair) !== undefined
    return [address, isKnown ? `pair ${pair}` : `account ${target.kind} ${target.account}`]
  }

  /** @throws rate-limit-exceeded unless an attempt was taken */
  #assertTaken (target: AttemptTarget, buckets: readonly string[], retryAfterMs: number | null) {
    if (retryAfterMs === null) return
    const wasLockedOut = buckets.some(bucket => this.#lockedOut.get(bucket))
    for (const bucket of buckets) this.#lockedOut.set(bucket, true, this.#now() + retryAfterMs)
    if (!wasLockedOut) this.emit('lockout', target, retryAfterMs)
    throw tooMany('rate-limit-exceeded', 'Too many failed attempts', retryAfterMs)
  }

  async #remember (target: AttemptTarget): Promise<void> {
    if (target.account === undefined) return
    await this.#kv.put({ kind: 'known', key: pairOf(target), value: '', until: this.#now() + knownForMs[target.kind] })
  }
}
