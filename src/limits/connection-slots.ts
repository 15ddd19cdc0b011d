import { randomUUID } from 'node:crypto'
import { isStorageUnavailable } from '../errors.js'
import { addressKey } from '../lib/address.js'
import type { Clock } from '../lib/clock.js'
import { Multiset } from '../lib/multiset.js'
import type { ResolvedOptions } from '../options.js'
import { tierNames, type TierName } from '../protocol/frames/catalogues.js'
import type { KeyValueEntry } from '../storage/kv-store.js'
import type { KeyValueCopy, KeyValueReplica } from '../storage/kv-store.js'

/** The part of a tier that limits its connections. */
interface LimitedTier {
  readonly name: TierName
  readonly requiresAuthentication: boolean
  readonly options: { readonly maxConnections: number, readonly maxFleetConnections?: number | undefined }
}

/** The share of one connection in the limits, from the arrival of its upgrade until its socket is closed. */
export interface ConnectionSlot {
  readonly slots: ConnectionSlots
  readonly tier: LimitedTier
  readonly addressKey: string
  /** `acquired` until the upgrade is admitted; `counted` slots count against the limit of their tier. */
  state: 'acquired' | 'unauthenticated' | 'counted' | 'released'
}

interface TierCounts {
  counted: number
  unauthenticated: number
  readonly unauthenticatedByAddress: Multiset
}

interface ConnectionSlotsOptions {
  limits: Pick<ResolvedOptions['sockets'], 'maxConnectionsPerAddress' | 'maxUnauthenticated' | 'maxUnauthenticatedPerAddress'>
  kvReplica: KeyValueReplica
  now: Clock
  onError: (error: unknown) => void
}

/**
 * Limits the number of connections: of each tier in this process and in all processes, of unauthenticated ones, and of
 * one address. An upgrade is counted when it is admitted, so that many simultaneous upgrades cannot exceed a limit.
 */
export class ConnectionSlots {
  readonly fleet: FleetConnections
  readonly #limits: ConnectionSlotsOptions['limits']
  readonly #tiers = new Map<TierName, TierCounts>()
  readonly #byAddress = new Multiset()

  constructor ({ limits, kvReplica, now, onError }: ConnectionSlotsOptions) {
    this.#limits = limits
    this.fleet = new FleetConnections({ kvReplica, now, countOf: tier => this.countOf(tier), onError })
  }

  /** Connections of this process that count against the limit of their tier. */
  countOf (name: TierName): number {
    return this.#countsOf(name).counted
  }

  isFull ({ name, options: { maxConnections, maxFleetConnections = Infinity } }: LimitedTier): boolean {
    return this.countOf(name) >= maxConnections || this.fleet.countOf(name) >= maxFleetConnections
  }

  /** @returns undefined if the address has the maximum number of connections */
  acquire (tier: LimitedTier, address: string): ConnectionSlot | undefined {
    const key = addressKey(address)
    if (this.#byAddress.count(key) >= this.#limits.maxConnectionsPerAddress) return undefined
    this.#byAddress.add(key)
    return { slots: this, tier, addressKey: key, state: 'acquired' }
  }

  /**
   * Admits an upgrade.
   * @param isAuthenticated whether the upgrade contains valid credentials
   * @returns the reason for a refusal, or undefined if the upgrade is admitted
   */
  admit (slot: ConnectionSlot, isAuthenticated: boolean): string | undefined {
    const { tier } = slot
    if (this.isFull(tier)) return 'Too many connections'
    if (!tier.requiresAuthentication || isAuthenticated) return this.#count(slot)
    const { unauthenticated, unauthenticatedByAddress } = this.#countsOf(tier.name)
    const { maxUnauthenticated, maxUnauthenticatedPerAddress } = this.#limits
    const isOver = unauthenticated >= maxUnauthenticated || unauthenticatedByAddress.count(slot.addressKey) >= maxUnauthenticatedPerAddress
    return isOver ? 'Too many unauthenticated connections' : this.#addUnauthenticated(slot)
  }

  /** The socket is open. It is unauthenticated until its handshake ends, which may refuse the credentials of the upgrade. */
  open (slot: ConnectionSlot): void {
    if (!slot.tier.requiresAuthentication || slot.state !== 'counted') return
    this.#countsOf(slot.tier.name).counted--
    this.#addUnauthenticated(slot)
  }

  /** The connection is authenticated. */
  authenticate (slot: ConnectionSlot): void {
    if (slot.state !== 'unauthenticated') return
    this.#removeUnauthenticated(slot)
    this.#count(slot)
  }

  /** Releases a slot; a second call has no effect. */
  release (slot: ConnectionSlot): void {
    if (slot.state === 'released') return
    if (slot.state === 'unauthenticated') this.#removeUnauthenticated(slot)
    if (slot.state === 'counted') this.#countsOf(slot.tier.name).counted--
    slot.state = 'released'
    this.#byAddress.delete(slot.addressKey)
  }

  #count (slot: ConnectionSlot): undefined {
    slot.state = 'counted'
    this.#countsOf(slot.tier.name).counted++
  }

  #addUnauthenticated (slot: ConnectionSlot): undefined {
    const counts = this.#countsOf(slot.tier.name)
    slot.state = 'unauthenticated'
    counts.unauthenticated++
    counts.unauthenticatedByAddress.add(slot.addressKey)
  }

  #removeUnauthenticated ({ tier, addressKey }: ConnectionSlot) {
    const counts = this.#countsOf(tier.name)
    counts.unauthenticated--
    counts.unauthenticatedByAddress.delete(addressKey)
  }

  #countsOf (name: TierName): TierCounts {
    const known = this.#tiers.get(name)
    if (known) return known
    const counts: TierCounts = { counted: 0, unauthenticated: 0, unauthenticatedByAddress: new Multiset() }
    this.#tiers.set(name, counts)
    return counts
  }
}

interface FleetConnectionsOptions {
  kvReplica: KeyValueReplica
  now: Clock
  /** Connections of this process that count against the limit of their tier. */
  countOf: (tier: TierName) => number
  onError: (error: unknown) => void
}

/** A process of another version may know other tiers. */
type Counts = Partial<Record<TierName, number>>

const intervalMs = 500
/** The count of a process expires after this time, so that a process that has ended is soon not counted. */
const lifeMs = 10 * intervalMs

/**
 * Counts the connections of all processes of a registry. Each process stores its own counts, at most twice a second and
 * only when they have changed; the totals are approximate by that much.
 */
export class FleetConnections implements KeyValueCopy {
  readonly #options: FleetConnectionsOptions
  readonly #process = randomUUID()
  readonly #others = new Map<string, { counts: Counts, until: number }>()
  #timer: NodeJS.Timeout | undefined
  #stored = ''
  #storedUntil = 0

  constructor (options: FleetConnectionsOptions) {
    this.#options = options
    options.kvReplica.attach('sockets', this)
  }

  /** Connections of a tier in all processes. */
  countOf (tier: TierName): number {
    const now = this.#options.now()
    let sum = this.#options.countOf(tier)
    for (const { counts, until } of this.#others.values()) if (until > now) sum += counts[tier] ?? 0
    return sum
  }

  start (): void {
    this.#timer = setInterval(() => { this.#store().catch(error => { this.#failed(error) }) }, intervalMs).unref()
  }

  stop (): void {
    clearInterval(this.#timer)
  }

  put ({ key, value, until }: KeyValueEntry & { value: string }): void {
    const counts: Counts = JSON.parse(value)
    if (key !== this.#process) this.#others.set(key, { counts, until })
  }

  removed (key: string): void {
    this.#others.delete(key)
  }

  keys (): Iterable<string> {
    return [...this.#others.keys()]
  }

  /** The storage itself reports that it is unavailable. */
  #failed (error: unknown) {
    this.#stored = ''
    if (!isStorageUnavailable(error)) this.#options.onError(error)
  }

  async #store (): Promise<void> {
    const now = this.#options.now()
    for (const [key, { until }] of this.#others) if (until <= now) this.#others.delete(key)
    const value = JSON.stringify(Object.fromEntries(tierNames.map(name => [name, this.#options.countOf(name)])))
    if (value === this.#stored && this.#storedUntil - now > lifeMs / 2) return
    this.#stored = value
    this.#storedUntil = now + lifeMs
    await this.#options.kvReplica.store.put({ kind: 'sockets', key: this.#process, value, until: this.#storedUntil })
  }
}
