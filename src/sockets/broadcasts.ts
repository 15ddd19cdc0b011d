import type { Dashboard } from '../dashboard/dashboard.js'
import type { DataFrameType } from '../dashboard/frames.js'
import { closeCodes } from '../protocol/codes.js'
import type { Connection } from './connection.js'
import { expiryNoticeSeconds } from './handshake.js'
import { EncodedMessage } from '../protocol/encoded-message.js'
import type { SocketServices } from './services.js'
import type { Tier } from './tiers.js'

/** Each tick pings so many that all who are silent get theirs within this part of the interval; of few it pings all. */
const pingShare = 1 / 4
const fewPings = 100

/** The one timer of all sockets: pings, deadlines, statistics. */
export class Ticker {
  readonly #services: SocketServices
  readonly #tiers: readonly Tier[]
  readonly #everyMs: number
  #timer: NodeJS.Timeout | undefined
  #tickedAt = 0
  /** Since when this process has not stood still for so long that it may have missed what was sent to it. */
  #awakeSince = 0

  constructor (services: SocketServices, tiers: readonly Tier[]) {
    const { bookmarkIntervalMs, keepAliveMs } = services.options.feed
    const shortest = Math.min(bookmarkIntervalMs, keepAliveMs, ...tiers.flatMap(({ options, protocolPingMs }) => [options.timeoutMs, options.intervalMs, options.idleTimeoutMs ?? Infinity, protocolPingMs]))
    this.#services = services
    this.#tiers = tiers
    this.#everyMs = Math.max(20, Math.min(1000, shortest / 4))
  }

  start (): void {
    this.#tickedAt = this.#services.now()
    this.#timer = setInterval(() => { this.#tick() }, this.#everyMs).unref()
  }

  stop (): void {
    clearInterval(this.#timer)
  }

  #tick () {
    const now = this.#services.now()
    this.#noticeStandstill(now)
    for (const tier of this.#tiers) this.#tickTier(tier, now)
    this.#services.subscribers.tick(now)
    this.#services.longRequests.tick(now)
  }

  /** Timers come before the network: what arrived meanwhile has not been read yet. */
  #noticeStandstill (now: number) {
    const bearable = Math.max(3 * this.#everyMs, Math.min(...this.#tiers.map(intervalOf)) / 2)
    if (now - this.#tickedAt > bearable) this.#awakeSince = now
    this.#tickedAt = now
  }

  #tickTier (tier: Tier, now: number) {
    const statistics = this.#statistics(now)
    const connections = this.#services.hub.connections(tier.name)
    let pings = Math.max(fewPings, connections.size * this.#everyMs / (pingShare * tier.protocolPingMs))
    for (const connection of connections) {
      if (this.#isGone(connection, now)) continue
      if (pings > 0 && ping(connection, now)) pings--
      if (!connection.isAuthenticated) this.#checkHandshake(connection, now)
      else if (tier.handshake) checkExpiry(connection, now)
      else sendStatistics(connection, now, statistics)
      this.#checkIdle(connection, now)
    }
  }

  /** Cuts off who shows no life, or does not answer the close. */
  #isGone (connection: Connection, now: number): boolean {
    const { closingAt, heardAt, tier } = connection
    const isLate = closingAt !== null && now - closingAt > closeTimeoutMs(connection)
    const isSilent = this.#since(heardAt, now) > 2 * intervalOf(tier)
    if (isLate || isSilent) connection.transport.terminate()
    return isLate || isSilent
  }

  #checkHandshake (connection: Connection, now: number) {
    const { tier, openedAt } = connection
    if (this.#since(openedAt, now) >= tier.options.timeoutMs) connection.close(tier.timeoutCode, 'Authentication timeout')
  }

  #checkIdle (connection: Connection, now: number) {
    const { usedAt, tier: { options: { idleTimeoutMs } } } = connection
    if (idleTimeoutMs !== undefined && this.#since(usedAt, now) >= idleTimeoutMs) connection.close(closeCodes.idle, 'Idle')
  }

  /** Milliseconds since then in which this process was there to hear something. */
  #since (then: number, now: number): number {
    return now - Math.max(then, this.#awakeSince)
  }

  /** Made when the first socket is due, and the same for all of them. */
  #statistics (now: number) {
    let message: EncodedMessage | undefined
    return () => {
      if (message) return message
      const { agent_types: types, ...counts } = this.#services.registry.stats()
      const available = Object.keys(types)
      const data = { ...counts, agent_types_count: available.length, available_types: available, system_status: 'operational' }
      message = new EncodedMessage(JSON.stringify({ type: 'stats_update', timestamp: now / 1000, data }))
      return message
    }
  }
}

/** How long a peer may take to answer a close frame; on a tier with authentication that is the same as for a token. */
const closeTimeoutMs = ({ tier }: Connection) => tier.options.timeoutMs

const intervalOf = ({ options: { pingIntervalMs }, protocolPingMs }: Tier) => Math.max(pingIntervalMs, protocolPingMs)

/** @returns whether there was something to send */
function ping (connection: Connection, now: number): boolean {
  const { dialect, tier: { options: { pingIntervalMs }, protocolPingMs }, heardAt, framedAt, pingedAt, textPingedAt } = connection
  const isDue = now - heardAt >= protocolPingMs && now - pingedAt >= protocolPingMs
  const isTextDue = dialect === 'agents' && now - framedAt >= pingIntervalMs && now - textPingedAt >= pingIntervalMs
  if (isDue) connection.ping(now)
  if (isTextDue) connection.textPing(now)
  return isDue || isTextDue
}

function checkExpiry (connection: Connection, now: number) {
  const { dialect, principal } = connection
  const { expiresAt } = principal!
  if (expiresAt === null) return
  if (now >= expiresAt * 1000) return connection.close(closeCodes.tokenExpired, 'Token expired')
  if (dialect === 'agents' && now >= (expiresAt - expiryNoticeSeconds) * 1000 && connection.expiryToldFor !== expiresAt) {
    connection.expiryToldFor = expiresAt
    connection.sendFrame({ type: 'token_expiring', expiresAt })
  }
}

function sendStatistics (connection: Connection, now: number, statistics: () => EncodedMessage) {
  if (now < connection.nextStatsAt) return
  connection.nextStatsAt = now + connection.tier.options.intervalMs
  connection.sendLatest('stats', () => [statistics()])
}

/** The data frames of a dashboard, in the order in which a new dashboard receives them. */
export const dataFrameTypes: readonly DataFrameType[] = ['monitoring', 'health', 'agents', 'logs', 'alert']

/**
 * Sends current data frames to one dashboard, without an effect on the others.
 * @returns the types of the frames that could not be made
 */
export function sendDataFrames (connection: Connection, dashboard: Dashboard, types: readonly DataFrameType[]): DataFrameType[] {
  const failed: DataFrameType[] = []
  for (const type of types) {
    const text = dashboard.frames.frame(type)
    if (text === undefined) failed.push(type)
    else if (text !== null) connection.send(text)
  }
  return failed
}
