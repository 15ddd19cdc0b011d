import { randomUUID } from 'node:crypto'
import type { Principal } from '../protocol/principal.js'
import { Emitter } from '../lib/emitter.js'
import type { Messaging } from '../messaging/messaging.js'
import { closeCodes } from '../protocol/codes.js'
import type { TierName } from '../protocol/frames/catalogues.js'
import type { Connection } from './connection.js'
import { drain, sendAway, terminate } from './drain.js'

/** Events of connections; `closed` follows once on every connection that was added. */
interface HubEvents {
  authenticated: [connection: Connection]
  /** The token of a connection was replaced. */
  renewed: [connection: Connection, previous: Principal]
  /** @param wasClean whether a close frame was received */
  closed: [connection: Connection, wasClean: boolean]
}

/** The open connections of this process. */
export class Hub extends Emitter<HubEvents> {
  readonly #tiers = new Map<TierName, Set<Connection>>()
  #isDraining = false

  get isDraining () { return this.#isDraining }

  /** The connections of a tier, unauthenticated ones included. */
  connections (name: TierName): ReadonlySet<Connection> {
    return this.#connections(name)
  }

  add (connection: Connection): void {
    this.#connections(connection.tier.name).add(connection)
    // The upgrade was admitted before the drain started.
    if (this.#isDraining) sendAway(connection)
  }

  authenticate (connection: Connection, principal: Principal): void {
    connection.authenticate(principal)
    this.emit('authenticated', connection)
  }

  /** Replaces the token of a connection. */
  renew (connection: Connection, principal: Principal): void {
    const previous = connection.authenticatedPrincipal
    connection.authenticate(principal)
    this.emit('renewed', connection, previous)
  }

  /** @param wasClean whether a close frame was received */
  remove (connection: Connection, wasClean: boolean): void {
    if (this.#connections(connection.tier.name).delete(connection)) this.emit('closed', connection, wasClean)
  }

  /** Closes the authenticated connections whose principal matches. */
  closeWhere (matches: (principal: Principal) => boolean, code: number, reason: string): void {
    for (const connection of this.#all()) {
      if (connection.principal && matches(connection.principal)) connection.close(code, reason)
    }
  }

  /** Closes the messaging connections of a peer in this process. @returns their number */
  closePeer (peerId: string, code: number, reason: string): number {
    const ofPeer = (connection: Connection) => connection.isPeer && connection.isOpen && connection.peerId === peerId
    const connections = [...this.#connections('agents'), ...this.#connections('v1')].filter(ofPeer)
    for (const connection of connections) connection.close(code, reason)
    return connections.length
  }

  /**
   * Refuses new connections from now on, closes all connections, spread over `ms`, and terminates those that are still
   * open after as much time again.
   */
  async drain (ms: number): Promise<void> {
    this.#isDraining = true
    await drain([...this.#all()], ms)
    await terminate(() => this.#all(), ms)
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

interface PendingDisconnect {
  /** Processes that have not reported yet. */
  readonly processes: Set<string>
  closed: number
  readonly done: () => void
}

/** Time to wait for the counts of other processes, which close their connections even if a count is lost. */
const waitMs = 1000

/** Disconnects peers in all processes. */
export class PeerDisconnects {
  readonly #hub: Hub
  readonly #messaging: Messaging
  readonly #pending = new Map<string, PendingDisconnect>()

  constructor ({ hub, messaging }: { hub: Hub, messaging: Messaging }) {
    this.#hub = hub
    this.#messaging = messaging
    messaging.processMessages.on('disconnect', (from, body) => { this.#receive(from, body) })
    messaging.processMessages.on('disconnected', (from, body) => { this.#count(from, body) })
  }

  /** Closes all connections of a peer. @returns their number, without those of processes that do not report in time */
  async disconnect (peerId: string): Promise<number> {
    const { broker: { process: self }, presence, processMessages } = this.#messaging
    const here = this.#close(peerId)
    const processes = presence.processesOf(peerId).filter(process => process !== self)
    if (processes.length === 0) return here
    const id = randomUUID()
    const elsewhere = this.#countOf(id, processes)
    for (const process of processes) processMessages.send(process, 'disconnect', JSON.stringify({ id, peerId }))
    return here + await elsewhere
  }

  #countOf (id: string, processes: string[]): Promise<number> {
    return new Promise(resolve => {
      const done = () => {
        clearTimeout(timer)
        this.#pending.delete(id)
        resolve(pending.closed)
      }
      const timer = setTimeout(done, waitMs).unref()
      const pending: PendingDisconnect = { processes: new Set(processes), closed: 0, done }
      this.#pending.set(id, pending)
    })
  }

  #receive (from: string, body: string) {
    const { id, peerId }: { id: string, peerId: string } = JSON.parse(body)
    this.#messaging.processMessages.send(from, 'disconnected', JSON.stringify({ id, closed: this.#close(peerId) }))
  }

  #count (from: string, body: string) {
    const { id, closed }: { id: string, closed: number } = JSON.parse(body)
    const pending = this.#pending.get(id)
    if (!pending?.processes.delete(from)) return
    pending.closed += closed
    if (pending.processes.size === 0) pending.done()
  }

  #close (peerId: string): number {
    return this.#hub.closePeer(peerId, closeCodes.disconnected, 'Disconnected by an admin')
  }
}
