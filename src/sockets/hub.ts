import type { Principal } from '../protocol/principal.js'
import type { Connection } from './connection.js'
import { clear, drain, sendAway } from './drain.js'
import type { SocketServices } from './services.js'
import type { TierName } from '../protocol/frames/catalogues.js'
import type { Tier } from './tiers.js'

/** Which connections there are, whose they are, and how they all go. */
export class Hub {
  readonly #tiers = new Map<TierName, Set<Connection>>()
  #services!: SocketServices
  #isDraining = false

  use (services: SocketServices): void {
    this.#services = services
  }

  get isDraining () { return this.#isDraining }

  /** Connections of a tier, those that are not authenticated among them. */
  connections (name: TierName): ReadonlySet<Connection> {
    return this.#connections(name)
  }

  /** Number of connections that count against the tier's limit. */
  countOf (name: TierName): number {
    return this.#services.slots.countOf(name)
  }

  isFull (tier: Tier): boolean {
    return this.#services.slots.isFull(tier)
  }

  add (connection: Connection): void {
    this.#connections(connection.tier.name).add(connection)
    this.#services.slots.open(connection.slot)
    // It was let in before, and what its upgrade went through since then took so long.
    if (this.#isDraining) sendAway(connection)
  }

  /** The connection is somebody's from now on. */
  identify (connection: Connection, principal: Principal): void {
    this.#services.slots.authenticate(connection.slot)
    connection.principal = principal
    connection.rate.setPrincipal(principal)
    this.#services.liveness.add(connection)
  }

  /** The same subject, with another token. */
  replaceToken (connection: Connection, principal: Principal): void {
    this.#services.liveness.delete(connection)
    connection.renew(principal)
    connection.rate.setPrincipal(principal)
    this.#services.liveness.add(connection)
    if (connection.isPeer) this.#services.messaging.tokenChanged(connection)
  }

  /** @param wasClean a close frame came: nothing broke */
  remove (connection: Connection, wasClean: boolean): void {
    if (!this.#connections(connection.tier.name).delete(connection)) return
    this.#services.slots.release(connection.slot)
    connection.rate.leave()
    if (connection.watcher) this.#services.subscribers.delete(connection.watcher)
    connection.watcher = null
    if (connection.isPeer) this.#services.messaging.removePeer(connection)
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

  /** Sends everybody away over `ms`; whoever is not gone at most as long again after that is cut off. */
  async drain (ms: number): Promise<void> {
    this.startDraining()
    await drain([...this.#all()], ms)
    await clear(() => this.#all(), ms)
  }

  * #all (): Generator<Connection> {
    for (const connections of this.#tiers.values()) yield * connections
  }

  #connections (name: TierName): Set<Connection> {
    const known = this.#tiers.get(name)
    if (known) return known
    const connections = new Set<Connection>()
    this.#tiers.set(name, connections)
    return connections
  }
}
