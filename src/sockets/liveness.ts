import { isAway } from '../errors.js'
import { Multimap } from '../lib/multimap.js'
import { closeCodes } from '../protocol/codes.js'
import type { Connection } from './connection.js'
import type { SocketServices } from './services.js'

/**
 * What sockets say of their agents' lives. Frames and pongs mark an agent here; one batched renewal goes to the store
 * at most every max(1 s, lease/10), sooner only for leases that are shorter than that.
 */
export class SocketLiveness {
  readonly #byAgent = new Multimap<string, Connection>()
  readonly #heard = new Map<string, number>()
  #services!: SocketServices
  #timer: NodeJS.Timeout | undefined

  start (services: SocketServices): void {
    this.#services = services
    const { leaseMs } = services.registry
    const everyMs = Math.min(Math.max(1000, leaseMs / 10), leaseMs / 3)
    this.#timer = setInterval(() => { this.#flush() }, everyMs).unref()
  }

  stop (): void {
    clearInterval(this.#timer)
  }

  add (connection: Connection): void {
    const agentId = agentOf(connection)
    if (agentId === null) return
    this.#byAgent.add(agentId, connection)
    this.heard(connection)
  }

  delete (connection: Connection): void {
    const agentId = agentOf(connection)
    if (agentId !== null) this.#byAgent.delete(agentId, connection)
  }

  /** Only a socket of the agent's current instance that does not just observe says anything of its life. */
  heard (connection: Connection): void {
    const agentId = agentOf(connection)
    if (agentId === null || connection.observes) return
    const incarnation = incarnationOf(connection)
    if (incarnation >= (this.#heard.get(agentId) ?? 0)) this.#heard.set(agentId, incarnation)
  }

  /** A broken connection makes its agent suspect, unless it has another one; its lease runs on. */
  lost (connection: Connection, wasClean: boolean): void {
    const agentId = agentOf(connection)
    const isBroken = agentId !== null && !wasClean && !connection.observes && !this.#services.hub.isDraining
    this.delete(connection)
    if (!isBroken || this.#isConnected(agentId)) return
    const incarnation = connection.principal!.incarnation ?? undefined
    this.#heard.delete(agentId)
    this.#services.registry.setState({ id: agentId, incarnation, state: 'suspect', reason: 'connection-lost' })
      .catch(() => { /* gone or replaced: then there is nothing to suspect */ })
  }

  /** Ends the sockets of instances that came before `incarnation`. */
  replaced (agentId: string, incarnation: number): void {
    for (const connection of this.#byAgent.of(agentId)) {
      if (incarnationOf(connection) < incarnation) connection.close(closeCodes.replaced, 'Replaced by a newer instance')
    }
  }

  #isConnected (agentId: string): boolean {
    return this.#byAgent.of(agentId).some(({ observes }) => !observes)
  }

  #flush () {
    if (this.#heard.size === 0) return
    const signs = Array.from(this.#heard, ([id, incarnation]) => ({ id, incarnation }))
    this.#heard.clear()
    this.#services.registry.renew(signs).catch(error => {
      this.#keep(signs)
      if (!isAway(error)) this.#services.onError(error)
    })
  }

  /** What could not be sent is sent with what is heard next. */
  #keep (signs: ReadonlyArray<{ id: string, incarnation: number }>) {
    for (const { id, incarnation } of signs) {
      if (incarnation >= (this.#heard.get(id) ?? 0)) this.#heard.set(id, incarnation)
    }
  }
}

/** A principal of the host that does not say counts as whichever instance is registered. */
function incarnationOf ({ principal }: Connection): number {
  return principal!.incarnation ?? Infinity
}

function agentOf ({ principal }: Connection): string | null {
  return principal?.type === 'agent' ? principal.agentId : null
}
