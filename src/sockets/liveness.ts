import type { Principal } from '../protocol/principal.js'
import { isStorageUnavailable } from '../errors.js'
import type { Clock } from '../lib/clock.js'
import { Multimap } from '../lib/multimap.js'
import { closeCodes } from '../protocol/codes.js'
import type { Registry } from '../registry/registry.js'
import type { Connection } from './connection.js'
import type { Hub } from './hub.js'
import type { Tier } from './tiers.js'

/** Seconds before the expiry of a token at which the client is notified. */
const expiryNoticeSeconds = 30

/** Silent connections get their pings within this share of the ping interval, a bounded number per tick. */
const pingShare = 1 / 4
/** Number of connections that are pinged per tick without that bound. */
const unspreadPings = 100

interface KeepAliveOptions { hub: Hub, tiers: readonly Tier[], now: Clock }

/** Pings silent connections, and closes connections that exceed a timeout or whose token has expired. One timer serves all connections. */
export class KeepAlive {
  readonly #hub: Hub
  readonly #tiers: readonly Tier[]
  readonly #now: Clock
  readonly #everyMs: number
  #timer: NodeJS.Timeout | undefined
  #tickedAt = 0
  /** When the process last resumed after a stall in which it may not have read what clients sent (epoch ms). */
  #awakeSince = 0

  constructor ({ hub, tiers, now }: KeepAliveOptions) {
    const shortest = Math.min(...tiers.flatMap(shortestTimes))
    this.#hub = hub
    this.#tiers = tiers
    this.#now = now
    this.#everyMs = Math.max(20, Math.min(1000, shortest / 4))
  }

  start (): void {
    this.#tickedAt = this.#now()
    this.#timer = setInterval(() => { this.#tick() }, this.#everyMs).unref()
  }

  stop (): void {
    clearInterval(this.#timer)
  }

  #tick () {
    const now = this.#now()
    this.#noticeStall(now)
    for (const tier of this.#tiers) this.#tickTier(tier, now)
  }

  /** Timers run before input is read: after a stall, clients get time for what they sent to be read. */
  #noticeStall (now: number) {
    const tolerable = Math.max(3 * this.#everyMs, Math.min(...this.#tiers.map(silenceMs)) / 2)
    if (now - this.#tickedAt > tolerable) this.#awakeSince = now
    this.#tickedAt = now
  }

  #tickTier (tier: Tier, now: number) {
    const connections = this.#hub.connections(tier.name)
    let pings = Math.max(unspreadPings, connections.size * this.#everyMs / (pingShare * tier.protocolPingMs))
    for (const connection of connections) {
      if (this.#terminateIfDead(connection, tier, now)) continue
      if (pings > 0 && pingIfDue(connection, tier, now)) pings--
      if (!connection.isAuthenticated) this.#checkHandshake(connection, tier, now)
      else if (connection.principal) checkExpiry(connection, connection.principal, now)
      this.#checkIdle(connection, now)
    }
  }

  /** Terminates a connection that is silent or does not answer the close frame. @returns whether it did */
  #terminateIfDead (connection: Connection, tier: Tier, now: number): boolean {
    const { closingAt, heardAt } = connection
    const isLate = closingAt !== null && now - closingAt > tier.options.timeoutMs
    const isSilent = this.#elapsedSince(heardAt, now) > 2 * silenceMs(tier)
    if (isLate || isSilent) connection.transport.terminate()
    return isLate || isSilent
  }

  #checkHandshake (connection: Connection, { options, timeoutCode }: Tier, now: number) {
    if (this.#elapsedSince(connection.openedAt, now) >= options.timeoutMs) connection.close(timeoutCode, 'Authentication timeout')
  }

  #checkIdle (connection: Connection, now: number) {
    const { inbound: { usedAt }, tier: { options: { idleTimeoutMs } } } = connection
    if (idleTimeoutMs !== undefined && this.#elapsedSince(usedAt, now) >= idleTimeoutMs) connection.close(closeCodes.idle, 'Idle')
  }

  /** Milliseconds since `then`, without those before the last stall ended. */
  #elapsedSince (then: number, now: number): number {
    return now - Math.max(then, this.#awakeSince)
  }
}

const silenceMs = ({ options: { pingIntervalMs }, protocolPingMs }: Tier) => Math.max(pingIntervalMs, protocolPingMs)

function shortestTimes ({ options: { timeoutMs, intervalMs, idleTimeoutMs = Infinity }, protocolPingMs }: Tier): number[] {
  return [timeoutMs, intervalMs, idleTimeoutMs, protocolPingMs]
}

/** @returns whether a ping was sent */
function pingIfDue (connection: Connection, { options: { pingIntervalMs }, protocolPingMs }: Tier, now: number): boolean {
  const { dialect, heardAt, inbound: { framedAt }, pingedAt, textPingedAt } = connection
  const isDue = now - heardAt >= protocolPingMs && now - pingedAt >= protocolPingMs
  const isTextDue = dialect === 'agents' && now - framedAt >= pingIntervalMs && now - textPingedAt >= pingIntervalMs
  if (isDue) connection.ping(now)
  if (isTextDue) connection.textPing(now)
  return isDue || isTextDue
}

function checkExpiry (connection: Connection, { expiresAt }: Principal, now: number) {
  if (expiresAt === null) return
  if (now >= expiresAt * 1000) return connection.close(closeCodes.tokenExpired, 'Token expired')
  const isDue = now >= (expiresAt - expiryNoticeSeconds) * 1000
  if (connection.dialect !== 'agents' || !isDue || connection.expiryNoticeFor === expiresAt) return
  connection.expiryNoticeFor = expiresAt
  connection.sendFrame({ type: 'token_expiring', expiresAt })
}

interface AgentHeartbeatsOptions { registry: Registry, hub: Hub, now: Clock, onError: (error: unknown) => void }

/**
 * Treats activity on the connections of an agent as heartbeats. One batched renewal goes to the store at most every
 * max(1 s, lease/10), more often only for leases of less than three seconds. Observers and older instances do not count.
 */
export class AgentHeartbeats {
  readonly #registry: Registry
  readonly #hub: Hub
  readonly #now: Clock
  readonly #onError: (error: unknown) => void
  readonly #connections = new Multimap<string, Connection>()
  /** The incarnations of active agents, for the next renewal. */
  readonly #active = new Map<string, number>()
  /** Time of the last renewal (epoch ms). */
  #renewedAt = 0
  #timer: NodeJS.Timeout | undefined

  constructor ({ registry, hub, now, onError }: AgentHeartbeatsOptions) {
    this.#registry = registry
    this.#hub = hub
    this.#now = now
    this.#onError = onError
  }

  start (): void {
    const { leaseMs } = this.#registry
    const everyMs = Math.min(Math.max(1000, leaseMs / 10), leaseMs / 3)
    this.#timer = setInterval(() => { this.#renew() }, everyMs).unref()
  }

  stop (): void {
    clearInterval(this.#timer)
  }

  /** The connection is authenticated. */
  add (connection: Connection): void {
    const agentId = agentOf(connection.principal)
    if (agentId !== null) this.#connections.add(agentId, connection)
  }

  /** The token of the connection was replaced. */
  replace (connection: Connection, previous: Principal): void {
    const agentId = agentOf(previous)
    if (agentId !== null) this.#connections.delete(agentId, connection)
    this.add(connection)
  }

  /** The connection is closed. If it broke and the agent has no other connection, the agent becomes suspect; its lease continues. */
  remove (connection: Connection, wasClean: boolean): void {
    const { principal, observes } = connection
    const agentId = agentOf(principal)
    if (agentId === null) return
    this.#connections.delete(agentId, connection)
    this.#recordIfActive(connection, this.#renewedAt)
    const isBroken = !wasClean && !observes && !this.#hub.isDraining
    if (!isBroken || this.#connections.of(agentId).some(({ observes }) => !observes)) return
    this.#active.delete(agentId)
    this.#registry.setState({ id: agentId, incarnation: principal?.incarnation ?? undefined, state: 'suspect', reason: 'connection-lost' })
      .catch(() => { /* The agent was removed or replaced. */ })
  }

  /** Closes the connections of instances before `incarnation`. */
  closeReplaced (agentId: string, incarnation: number): void {
    for (const connection of this.#connections.of(agentId)) {
      if (incarnationOf(connection.principal) < incarnation) connection.close(closeCodes.replaced, 'Replaced by a newer instance')
    }
  }

  #renew () {
    const since = this.#renewedAt
    this.#renewedAt = this.#now()
    for (const connection of this.#connections.values()) this.#recordIfActive(connection, since)
    if (this.#active.size === 0) return
    const heartbeats = Array.from(this.#active, ([id, incarnation]) => ({ id, incarnation }))
    this.#active.clear()
    this.#registry.renew(heartbeats).catch(error => {
      // They are sent again with the next renewal.
      for (const { id, incarnation } of heartbeats) this.#record(id, incarnation)
      if (!isStorageUnavailable(error)) this.#onError(error)
    })
  }

  #recordIfActive ({ principal, observes, heardAt }: Connection, since: number) {
    const agentId = agentOf(principal)
    if (agentId !== null && !observes && heardAt >= since) this.#record(agentId, incarnationOf(principal))
  }

  #record (agentId: string, incarnation: number) {
    if (incarnation >= (this.#active.get(agentId) ?? 0)) this.#active.set(agentId, incarnation)
  }
}

/** A host's principal without an incarnation counts as the current instance. */
function incarnationOf (principal: Principal | null): number {
  return principal?.incarnation ?? Infinity
}

function agentOf (principal: Principal | null): string | null {
  return principal?.type === 'agent' ? principal.agentId : null
}
