import type { Clock } from '../lib/clock.js'
import { TokenBucket } from '../lib/token-bucket.js'
import type { ResolvedOptions } from '../options.js'
import type { Principal } from '../protocol/principal.js'
import { SharedBuckets, type BucketRate, type SharedBucket } from './shared-buckets.js'

type RateOptions = Pick<ResolvedOptions, 'sockets' | 'routes' | 'publicWs' | 'agentsWs' | 'dashboardWs' | 'v1Ws'>

/** The rate of a principal and of an address, as a multiple of the rate of one connection. */
const connectionsPerPrincipal = 2
const connectionsPerAddress = 10

/** The rates that connections share. */
export interface FrameRates {
  readonly principals: SharedBuckets
  readonly addresses: SharedBuckets
}

/** Rates that are not configured follow from the rate of one connection, in the tier that allows most. */
function ratesOf ({ sockets, routes, publicWs, agentsWs, dashboardWs, v1Ws }: RateOptions): { principal: BucketRate, address: BucketRate } {
  const tiers = [publicWs, agentsWs, dashboardWs, ...(routes.v1 ? [v1Ws] : [])]
  const perSecond = Math.max(...tiers.map(tier => tier.messagesPerSecond))
  const burst = Math.max(...tiers.map(tier => tier.burst))
  // All connections behind one address may answer a ping in the same instant.
  const maxConnections = tiers.reduce((sum, tier) => sum + tier.maxConnections, 0)
  return {
    principal: {
      perSecond: sockets.messagesPerSecondPerPrincipal ?? connectionsPerPrincipal * perSecond,
      burst: sockets.burstPerPrincipal ?? connectionsPerPrincipal * burst
    },
    address: {
      perSecond: sockets.messagesPerSecondPerAddress ?? Math.max(connectionsPerAddress * perSecond, maxConnections),
      burst: sockets.burstPerAddress ?? Math.max(connectionsPerAddress * burst, 2 * maxConnections)
    }
  }
}

export function createFrameRates (options: RateOptions, now: Clock): FrameRates {
  const { principal, address } = ratesOf(options)
  return { principals: new SharedBuckets(principal, now), addresses: new SharedBuckets(address, now) }
}

/** Identifies a client for rate limits: an agent by its id whatever its token, any other client by role and subject. */
export function rateLimitKey ({ type, role, agentId, subject }: Principal): string {
  return type === 'agent' && agentId !== null ? `agent ${agentId}` : `${role} ${subject}`
}

/**
 * The rate at which one connection may send frames, limited by its own bucket and by those of its principal and address.
 * A frame that one bucket refuses takes no token from the others.
 */
export class FrameRate {
  readonly #rates: FrameRates
  readonly #own: TokenBucket
  readonly #address: SharedBucket
  #principal: SharedBucket | null = null
  #violations: RateViolations | null = null

  constructor (rates: FrameRates, { perSecond, burst }: BucketRate, { addressKey, now }: { addressKey: string, now: number }) {
    this.#rates = rates
    this.#own = new TokenBucket({ perSecond, burst, now })
    this.#address = rates.addresses.join(addressKey)
  }

  /** Whether the connection has ignored the limit for so long that it should be closed. */
  get isAbuse (): boolean { return this.#violations !== null && this.#violations.isAbuse }

  /** Whether so many frames are refused that replies to all of them would be a burden. */
  get isFlood (): boolean { return this.#violations !== null && this.#violations.isFlood }

  /** Takes one frame. @returns 0, or the milliseconds after which the same frame would pass */
  take (now: number): number {
    const own = Math.max(this.#own.wait(now), this.#principal === null ? 0 : this.#principal.bucket.wait(now))
    const wait = Math.max(own, this.#address.bucket.wait(now))
    if (wait > 0) {
      this.#violations ??= new RateViolations()
      this.#violations.add(now, wait, own > 0)
      return wait
    }
    this.#own.spend()
    this.#address.bucket.spend()
    this.#principal?.bucket.spend()
    return 0
  }

  /** From now on the frames of the connection also count for this principal. */
  setPrincipal (principal: Principal): void {
    const key = rateLimitKey(principal)
    if (key === this.#principal?.key) return
    this.#leavePrincipal()
    this.#principal = this.#rates.principals.join(key)
  }

  /** The connection is closed. */
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
/** A pause of this length ends a series of violations. */
const pauseMs = 1000
/** More refusals than this within `floodMs` are a flood. */
const maxRefusals = 100
const floodMs = 100

/** The refused frames of one connection. */
class RateViolations {
  #since = 0
  #lastAt = -Infinity
  /** When the client was told to retry. */
  #retryAt = -Infinity
  #countedSince = -Infinity
  #refusals = 0

  get isAbuse (): boolean { return this.#lastAt - this.#since > abuseMs }

  get isFlood (): boolean { return this.#refusals > maxRefusals }

  /** @param isOwn whether the connection or its principal exceeded their own rate, not only the rate of the shared address */
  add (now: number, retryAfterMs: number, isOwn: boolean): void {
    // A client that retries when it was told to is not responsible for others behind its address.
    if (isOwn || now < this.#retryAt) this.#violate(now)
    this.#retryAt = now + retryAfterMs
    this.#count(now)
  }

  /** A client over the limit still passes a frame now and then, so that only a pause ends the series. */
  #violate (now: number) {
    if (now - this.#lastAt > pauseMs) this.#since = now
    this.#lastAt = now
  }

  #count (now: number) {
    if (now - this.#countedSince >= floodMs) {
      this.#countedSince = now
      this.#refusals = 0
    }
    this.#refusals++
  }
}
