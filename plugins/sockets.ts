import type { Core } from '../src/core.js'
import { Feed } from '../src/registry/feed.js'
import { closeCodes } from '../src/sockets/codes.js'
import { agentsHandlers, publicHandlers } from '../src/sockets/handlers/index.js'
import { Handshake } from '../src/sockets/handshake.js'
import { Hub } from '../src/sockets/hub.js'
import { ListUpdates } from '../src/sockets/list-updates.js'
import { SocketLiveness } from '../src/sockets/liveness.js'
import type { SocketServices } from '../src/sockets/services.js'
import { Ticker } from '../src/sockets/ticker.js'
import type { Tier } from '../src/sockets/tiers.js'
import { Watchers } from '../src/sockets/watchers.js'

export interface Sockets {
  readonly services: SocketServices
  readonly tiers: { readonly public: Tier, readonly agents: Tier }
  start (): void
  stop (): Promise<void>
}

function createTiers ({ options, registry }: Core): Sockets['tiers'] {
  const { publicWs, agentsWs } = options
  return {
    public: { name: 'public', options: publicWs, authenticates: false, view: 'public', handlers: publicHandlers, protocolPingMs: publicWs.pingIntervalMs },
    // An agent that lives by its socket alone must be heard within its lease.
    agents: { name: 'agents', options: agentsWs, authenticates: true, view: 'full', handlers: agentsHandlers, protocolPingMs: Math.min(agentsWs.pingIntervalMs, registry.leaseMs / 3) }
  }
}

function createServices ({ registry, membership, authority, options, now, log }: Core): SocketServices {
  return {
    registry,
    membership,
    authority,
    options,
    now,
    feed: new Feed(registry.replica),
    hub: new Hub(),
    watchers: new Watchers({ bookmarkIntervalMs: options.feed.bookmarkIntervalMs, now }),
    lists: new ListUpdates(),
    liveness: new SocketLiveness(),
    handshake: new Handshake(),
    onError: error => log.error({ err: error }, 'socket')
  }
}

/** The socket side of a registry: told of changes and revocations, ticking from `start` to `stop`. */
export function createSockets (core: Core): Sockets {
  const tiers = createTiers(core)
  const services = createServices(core)
  const { hub, handshake, lists, liveness, watchers } = services
  const ticker = new Ticker(services, [tiers.public, tiers.agents])
  hub.use(services)
  handshake.use(services)

  core.registry.onChange(change => {
    lists.change(change)
    watchers.changed()
    if (change.event === 'registered' && change.before) liveness.replaced(change.id, change.after!.incarnation)
  })
  core.revocations.onRevoke(revoked => {
    const ends = 'jti' in revoked
      ? ({ tokenId }: { tokenId: string }) => tokenId === revoked.jti
      : ({ type, agentId, incarnation }: { type: string, agentId: string | null, incarnation: number | null }) =>
          type === 'agent' && agentId === revoked.agentId && (incarnation ?? 0) <= revoked.incarnation
    hub.closeWhere(ends, closeCodes.tokenInvalid, 'Token revoked')
  })
  core.sessions.onEnd(({ id }) => hub.closeWhere(({ sessionId }) => sessionId === id, closeCodes.tokenInvalid, 'Session ended'))

  return {
    services,
    tiers,
    start () {
      lists.start(services, [{ tier: tiers.public, intervalMs: core.options.sockets.agentsUpdateIntervalMs }, { tier: tiers.agents, intervalMs: tiers.agents.options.intervalMs }])
      liveness.start(services)
      ticker.start()
    },
    async stop () {
      await hub.drain(core.options.sockets.drainMs)
      ticker.stop()
      liveness.stop()
      lists.stop()
      watchers.close()
    }
  }
}
