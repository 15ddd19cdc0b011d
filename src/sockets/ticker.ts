import { closeCodes } from './codes.js'
import type { Connection } from './connection.js'
import { expiryNoticeSeconds } from './handshake.js'
import { Outgoing } from './outgoing.js'
import type { SocketServices } from './services.js'
import type { Tier } from './tiers.js'

/** The one timer of all sockets: pings, deadlines, statistics. */
export class Ticker {
  readonly #services: SocketServices
  readonly #tiers: readonly Tier[]
  #timer: NodeJS.Timeout | undefined

  constructor (services: SocketServices, tiers: readonly Tier[]) {
    this.#services = services
    this.#tiers = tiers
  }

  start (): void {
    const { bookmarkIntervalMs, keepAliveMs } = this.#services.options.feed
    const shortest = Math.min(bookmarkIntervalMs, keepAliveMs, ...this.#tiers.flatMap(({ options, protocolPingMs }) => [options.timeoutMs, options.intervalMs, protocolPingMs]))
    this.#timer = setInterval(() => { this.#tick() }, Math.max(20, Math.min(1000, shortest / 4))).unref()
  }

  stop (): void {
    clearInterval(this.#timer)
  }

  #tick () {
    const now = this.#services.now()
    for (const tier of this.#tiers) {
      const statistics = this.#statistics(now)
      for (const connection of this.#services.hub.connections(tier.name)) {
        this.#checkLife(connection, now)
        if (!connection.isAuthenticated) checkHandshake(connection, now)
        else if (tier.handshake) checkExpiry(connection, now)
        else sendStatistics(connection, now, statistics)
      }
    }
    this.#services.readers.tick(now)
    this.#services.visitors.tick(now)
  }

  #checkLife (connection: Connection, now: number) {
    const { options: { pingIntervalMs }, protocolPingMs } = connection.tier
    const silence = now - connection.heardAt
    if (connection.closingAt !== null && now - connection.closingAt > closeTimeoutMs(connection)) return connection.transport.terminate()
    if (silence > 2 * Math.max(pingIntervalMs, protocolPingMs)) return connection.transport.terminate()
    if (silence >= protocolPingMs && now - connection.pingedAt >= protocolPingMs) {
      connection.pingedAt = now
      connection.ping()
    }
    if (now - connection.framedAt >= pingIntervalMs && now - connection.textPingedAt >= pingIntervalMs) {
      connection.textPingedAt = now
      connection.textPing()
    }
  }

  /** Made when the first socket is due, and the same for all of them. */
  #statistics (now: number) {
    let message: Outgoing | undefined
    return () => {
      if (message) return message
      const { agent_types: types, ...counts } = this.#services.registry.stats()
      const available = Object.keys(types)
      const data = { ...counts, agent_types_count: available.length, available_types: available, system_status: 'operational' }
      message = new Outgoing(JSON.stringify({ type: 'stats_update', timestamp: now / 1000, data }))
      return message
    }
  }
}

/** How long a peer may take to answer a close frame; on a tier with authentication that is the same as for a token. */
const closeTimeoutMs = ({ tier }: Connection) => tier.options.timeoutMs

function checkHandshake (connection: Connection, now: number) {
  if (now - connection.openedAt >= connection.tier.options.timeoutMs) {
    connection.close(connection.tier.timeoutCode, 'Authentication timeout')
  }
}

function checkExpiry (connection: Connection, now: number) {
  const { expiresAt } = connection.principal!
  if (expiresAt === null) return
  if (now >= expiresAt * 1000) return connection.close(closeCodes.tokenExpired, 'Token expired')
  if (now >= (expiresAt - expiryNoticeSeconds) * 1000 && connection.expiryToldFor !== expiresAt) {
    connection.expiryToldFor = expiresAt
    connection.sendFrame({ type: 'token_expiring', expiresAt })
  }
}

function sendStatistics (connection: Connection, now: number, statistics: () => Outgoing) {
  if (now < connection.nextStatsAt) return
  connection.nextStatsAt = now + connection.tier.options.intervalMs
  connection.sendLatest('stats', () => [statistics()])
}
