import type { Principal } from '../auth/principal.js'
import type { Clock } from '../lib/clock.js'
import type { ResolvedOptions } from '../options.js'
import { SharedBuckets, type BucketRate } from './keyed-buckets.js'

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
