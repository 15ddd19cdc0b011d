import { setTimeout as delay } from 'node:timers/promises'
import { addressKey } from '../auth/address.js'
import type { Principal } from '../auth/principal.js'
import { closeCodes } from './codes.js'
import type { Connection } from './connection.js'
import type { SocketServices } from './services.js'
import type { Tier, TierName } from './tiers.js'

/** A few connections need not wait for the whole time that many are spread over. */
const msPerClose = 10

interface TierState {
  readonly connections: Set<Connection>
  /** Those that have not said yet who they are, per address. */
  readonly pending: Map<string, number>
  pendingCount: number
}

/** Which connections there are, how many there may be, and how they all go. */
export class Hub {
  readonly #tiers = new Map<TierName, TierState>()
  #services!: SocketServices
  #isDraining = false

  use (services: SocketServices): void {
    this.#services = services
  }

  get isDraining () { return this.#isDraining }

  /** Connections of a tier, those that are not authenticated among them. */
  connections (name: TierName): ReadonlySet<Connection> {
    return this.#state(name).connections
  }

  /** Number of connections that count against the tier's limit. */
  countOf (name: TierName): number {
    const { connections, pendingCount } = this.#state(name)
    return connections.size - pendingCount
  }

  isFull ({ name, options: { maxConnections, maxFleetConnections = Infinity } }: Tier): boolean {
    return this.countOf(name) >= maxConnections || this.#services.fleet.countOf(name) >= maxFleetConnections
  }

  /** Why another upgrade is refused; undefined lets it in. `isKnown` when the upgrade says who it is. */
  objection (tier: Tier, address: string, isKnown: boolean): string | undefined {
    if (this.#isDraining) return 'Shutting down'
    if (this.isFull(tier)) return 'Too many connections'
    if (tier.handshake === null || isKnown) return undefined
    const { pending, pendingCount } = this.#state(tier.name)
    const { maxUnauthenticated, maxUnauthenticatedPerAddress } = this.#services.options.sockets
    const isOver = pendingCount >= maxUnauthenticated || (pending.get(addressKey(address)) ?? 0) >= maxUnauthenticatedPerAddress
    return isOver ? 'Too many connections that are not authenticated' : undefined
  }

  add (connection: Connection): void {
    const state = this.#state(connection.tier.name)
    state.connections.add(connection)
    if (!connection.isAuthenticated) this.#pend(state, connection, 1)
  }

  /** The connection is somebody's from now on. */
  identify (connection: Connection, principal: Principal): void {
    if (!connection.isAuthenticated) this.#pend(this.#state(connection.tier.name), connection, -1)
    connection.principal = principal
    this.#services.liveness.add(connection)
  }

  /** The same subject, with another token. */
  replaceToken (connection: Connection, principal: Principal): void {
    this.#services.liveness.delete(connection)
    connection.principal = principal
    this.#services.liveness.add(connection)
  }

  /** @param wasClean a close frame came: nothing broke */
  remove (connection: Connection, wasClean: boolean): void {
    const state = this.#state(connection.tier.name)
    if (!state.connections.delete(connection)) return
    if (!connection.isAuthenticated) this.#pend(state, connection, -1)
    if (connection.watcher) this.#services.readers.delete(connection.watcher)
    connection.watcher = null
    this.#services.liveness.lost(connection, wasClean)
    if (connection.principal) connection.tier.handshake?.left?.(connection)
  }

  /** Closes every connection of a principal that `ends` says yes to. */
  closeWhere (ends: (principal: Principal) => boolean, code: number, reason: string): void {
    for (const connection of this.#all()) {
      if (connection.principal && ends(connection.principal)) connection.close(code, reason)
    }
  }

  /** Refuses new connections from now on. */
  startDraining (): void {
    this.#isDraining = true
  }

  /**
   * Tells everybody when to come back, each at another time, and closes each at that time, so that those who do not
   * understand it come back as spread. Takes `ms` at most, less when there are few; whoever has not answered the close
   * as long again after that is cut off, so that a dead peer holds nothing up.
   */
  async drain (ms: number): Promise<void> {
    this.startDraining()
    const connections = [...this.#all()]
    const spread = Math.min(ms, connections.length * msPerClose)
    const started = performance.now()
    const slots = connections.map((connection, index) => {
      const slot = Math.floor(spread * (index + Math.random()) / connections.length)
      connection.sendFrame({ type: 'going_away', retryAfterMs: slot })
      return { connection, slot }
    })
    for (const { connection, slot } of slots) {
      const wait = started + slot - performance.now()
      if (wait > 1) await delay(wait)
      connection.close(closeCodes.goingAway, 'Going away')
    }
    await this.#gone(ms)
    for (const connection of this.#all()) connection.transport.terminate()
  }

  /** Resolves when no connection is left, after `ms` at the latest. */
  async #gone (ms: number): Promise<void> {
    const deadline = performance.now() + ms
    while (this.#size() > 0 && performance.now() < deadline) await delay(10)
  }

  #size () {
    return [...this.#tiers.values()].reduce((sum, { connections }) => sum + connections.size, 0)
  }

  * #all (): Generator<Connection> {
    for (const { connections } of this.#tiers.values()) yield * connections
  }

  #pend ({ pending }: TierState, { tier, address }: Connection, by: 1 | -1) {
    const key = addressKey(address)
    const count = (pending.get(key) ?? 0) + by
    if (count > 0) pending.set(key, count)
    else pending.delete(key)
    this.#state(tier.name).pendingCount += by
  }

  #state (name: TierName): TierState {
    const known = this.#tiers.get(name)
    if (known) return known
    const state: TierState = { connections: new Set(), pending: new Map(), pendingCount: 0 }
    this.#tiers.set(name, state)
    return state
  }
}
