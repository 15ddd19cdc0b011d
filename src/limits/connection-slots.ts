import { addressKey } from '../lib/address.js'
import type { ResolvedOptions } from '../options.js'
import { Multiset } from '../lib/multiset.js'
import type { Tier, TierName } from '../sockets/tiers.js'

/** What one socket takes from when its upgrade arrives until it is gone. */
export interface Place {
  readonly places: Places
  readonly tier: Tier
  readonly addressKey: string
  /** Deciding: its upgrade has not been let in yet. Waiting: it has not said who it is. */
  state: 'deciding' | 'waiting' | 'known' | 'left'
}

interface TierCounts {
  known: number
  waiting: number
  readonly waitingByAddress: Multiset
}

export interface PlacesOptions {
  limits: Pick<ResolvedOptions['sockets'], 'maxConnectionsPerAddress' | 'maxUnauthenticated' | 'maxUnauthenticatedPerAddress'>
  /** Sockets of a tier in all processes. */
  fleetCountOf: (tier: TierName) => number
}

/**
 * How many sockets there are and may be: in a tier, of those that have not said who they are, and from one address.
 * An upgrade counts as soon as it is let in, so that many at once do not pass one after the other's look.
 */
export class Places {
  readonly #options: PlacesOptions
  readonly #tiers = new Map<TierName, TierCounts>()
  readonly #byAddress = new Multiset()

  constructor (options: PlacesOptions) {
    this.#options = options
  }

  /** Sockets that count against the limit of their tier. */
  countOf (name: TierName): number {
    return this.#tier(name).known
  }

  isFull ({ name, options: { maxConnections, maxFleetConnections = Infinity } }: Tier): boolean {
    return this.countOf(name) >= maxConnections || this.#options.fleetCountOf(name) >= maxFleetConnections
  }

  /** A place for an upgrade that arrives. @returns undefined when its address has as many as it may */
  enter (tier: Tier, address: string): Place | undefined {
    const key = addressKey(address)
    if (this.#byAddress.of(key) >= this.#options.limits.maxConnectionsPerAddress) return undefined
    this.#byAddress.add(key)
    return { places: this, tier, addressKey: key, state: 'deciding' }
  }

  /** Lets an upgrade in. `isKnown` when it says who it is. @returns why it is refused; undefined when it is in */
  admit (place: Place, isKnown: boolean): string | undefined {
    const { tier } = place
    if (this.isFull(tier)) return 'Too many connections'
    if (tier.handshake === null || isKnown) return this.#settle(place)
    const { waiting, waitingByAddress } = this.#tier(tier.name)
    const { maxUnauthenticated, maxUnauthenticatedPerAddress } = this.#options.limits
    const isOver = waiting >= maxUnauthenticated || waitingByAddress.of(place.addressKey) >= maxUnauthenticatedPerAddress
    return isOver ? 'Too many connections that are not authenticated' : this.#wait(place)
  }

  /** The socket is open. Who it is counts from its handshake on, which may not take what the upgrade says. */
  open (place: Place): void {
    if (place.tier.handshake === null || place.state !== 'known') return
    this.#tier(place.tier.name).known--
    this.#wait(place)
  }

  /** Who is there is known from now on. */
  identify (place: Place): void {
    if (place.state !== 'waiting') return
    this.#stopWaiting(place)
    this.#settle(place)
  }

  /** Does nothing the second time. */
  leave (place: Place): void {
    if (place.state === 'left') return
    if (place.state === 'waiting') this.#stopWaiting(place)
    if (place.state === 'known') this.#tier(place.tier.name).known--
    place.state = 'left'
    this.#byAddress.remove(place.addressKey)
  }

  #settle (place: Place): undefined {
    place.state = 'known'
    this.#tier(place.tier.name).known++
  }

  #wait (place: Place): undefined {
    const counts = this.#tier(place.tier.name)
    place.state = 'waiting'
    counts.waiting++
    counts.waitingByAddress.add(place.addressKey)
  }

  #stopWaiting ({ tier, addressKey }: Place) {
    const counts = this.#tier(tier.name)
    counts.waiting--
    counts.waitingByAddress.remove(addressKey)
  }

  #tier (name: TierName): TierCounts {
    const known = this.#tiers.get(name)
    if (known) return known
    const counts: TierCounts = { known: 0, waiting: 0, waitingByAddress: new Multiset() }
    this.#tiers.set(name, counts)
    return counts
  }
}
