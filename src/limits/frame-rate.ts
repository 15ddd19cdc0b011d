import type { Principal } from '../protocol/principal.js'
import type { Clock } from '../lib/clock.js'
import type { ResolvedOptions } from '../options.js'
import { SharedBuckets, type BucketRate, type SharedBucket } from './keyed-buckets.js'
import { TokenBucket } from '../lib/token-bucket.js'

type RateOptions = Pick<ResolvedOptions, 'sockets' | 'routes' | 'publicWs' | 'agentsWs' | 'dashboardWs' | 'v1Ws'>

const perPrincipal = 2
const perAddress = 10

/** What connections share of the right to send. */
export interface FrameRates {
  readonly principals: SharedBuckets
  readonly addresses: SharedBuckets
}

/** Rates that nobody configured follow from those of a connection, of the tier that allows most. */
function ratesOf ({ sockets, routes, publicWs, agentsWs, dashboardWs, v1Ws }: RateOptions): { principal: BucketRate, address: BucketRate } {
  const tiers = [publicWs, agentsWs, dashboardWs, ...(routes.v1 ? [v1Ws] : [])]
  const perSecond = Math.max(...tiers.map(tier => tier.messagesPerSecond))
  const burst = Math.max(...tiers.map(tier => tier.burst))
  // A fleet behind one address answers a ping of ours in one instant.
  const places = tiers.reduce((sum, tier) => sum + tier.maxConnections, 0)
  return {
    principal: {
      perSecond: sockets.messagesPerSecondPerPrincipal ?? perPrincipal * perSecond,
      burst: sockets.burstPerPrincipal ?? perPrincipal * burst
    },
    address: {
      perSecond: sockets.messagesPerSecondPerAddress ?? Math.max(perAddress * perSecond, places),
      burst: sockets.burstPerAddress ?? Math.max(perAddress * burst, 2 * places)
    }
  }
}

export function createFrameRates (options: RateOptions, now: Clock): FrameRates {
  const { principal, address } = ratesOf(options)
  return { principals: new SharedBuckets(principal, now), addresses: new SharedBuckets(address, now) }
}

/** Whom the sockets of a principal are counted for: an agent whatever its token, anybody else by subject. */
export function rateKeyOf ({ type, role, agentId, subject }: Principal): string {
  return type === 'agent' && agentId !== null ? `agent ${agentId}` : `${role} ${subject}`
}

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

const abuseMs = 10_000
/** Time without an offence after which a sender has a clean sheet. */
const forgivenMs = 1000
/** So many refusals within so long are still answered as they come. */
const maxRefusals = 100
const refusalsMs = 100

/** What a sender did whose frames were refused. */
export class Offences {
  #since = 0
  #at = -Infinity
  /** When it was told to come again. */
  #retryAt = -Infinity
  #countedSince = -Infinity
  #refusals = 0

  /** It has gone on for too long to be let go on. */
  get isAbuse (): boolean { return this.#at - this.#since > abuseMs }

  /** So much is refused that answering all of it would be a burden. */
  get isFlood (): boolean { return this.#refusals > maxRefusals }

  /** @param isOwn over its own rate, not just over what others behind its address have left */
  refused (now: number, retryAfterMs: number, isOwn: boolean): void {
    // Whoever comes when it was told to is not to blame for its neighbours.
    if (isOwn || now < this.#retryAt) this.#offended(now)
    this.#retryAt = now + retryAfterMs
    this.#count(now)
  }

  /** A sender over the limit still gets a frame through now and then: only a pause ends the count. */
  #offended (now: number) {
    if (now - this.#at > forgivenMs) this.#since = now
    this.#at = now
  }

  #count (now: number) {
    if (now - this.#countedSince >= refusalsMs) {
      this.#countedSince = now
      this.#refusals = 0
    }
    this.#refusals++
  }
}
