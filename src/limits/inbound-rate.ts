import type { Principal } from '../auth/principal.js'
import { TokenBucket } from '../lib/token-bucket.js'
import { rateKeyOf, type FrameRates } from './frame-rate.js'
import { Offences } from './offences.js'
import type { BucketRate, SharedBucket } from './keyed-buckets.js'

/**
 * What one connection may send: as much as it, its principal and its address have left. A frame that one of them
 * refuses takes nothing from the others.
 */
export class InboundRate {
  readonly #rates: FrameRates
  readonly #own: TokenBucket
  readonly #address: SharedBucket
  #principal: SharedBucket | null = null
  #offences: Offences | null = null

  constructor (rates: FrameRates, { perSecond, burst }: BucketRate, { addressKey, now }: { addressKey: string, now: number }) {
    this.#rates = rates
    this.#own = new TokenBucket({ perSecond, burst, now })
    this.#address = rates.addresses.join(addressKey)
  }

  get isAbuse (): boolean { return this.#offences !== null && this.#offences.isAbuse }
  get isFlood (): boolean { return this.#offences !== null && this.#offences.isFlood }

  /** Takes one frame. @returns 0, or the milliseconds after which this very frame would pass */
  take (now: number): number {
    const own = Math.max(this.#own.wait(now), this.#principal === null ? 0 : this.#principal.bucket.wait(now))
    const wait = Math.max(own, this.#address.bucket.wait(now))
    if (wait > 0) {
      this.#offences ??= new Offences()
      this.#offences.refused(now, wait, own > 0)
      return wait
    }
    this.#own.spend()
    this.#address.bucket.spend()
    this.#principal?.bucket.spend()
    return 0
  }

  /** From now on the connection also counts for this principal. */
  belongTo (principal: Principal): void {
    const key = rateKeyOf(principal)
    if (key === this.#principal?.key) return
    this.#leavePrincipal()
    this.#principal = this.#rates.principals.join(key)
  }

  /** The connection is gone. */
  leave (): void {
    this.#rates.addresses.leave(this.#address)
    this.#leavePrincipal()
  }

  #leavePrincipal () {
    if (this.#principal !== null) this.#rates.principals.leave(this.#principal)
    this.#principal = null
  }
}
