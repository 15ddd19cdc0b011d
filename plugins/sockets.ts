import { Admission } from '../src/limits/admission.js'
import { isImpostor } from '../src/auth/rights.js'
import type { Principal } from '../src/protocol/principal.js'
import type { Core } from '../src/core.js'
import type { DataFrameType } from '../src/dashboard/frames.js'
import { FrameProducer } from '../src/dashboard/producer.js'
import { monotonicClock } from '../src/lib/clock.js'
import { Subscribers } from '../src/registry/feed/subscribers.js'
import { Feed } from '../src/registry/feed/change-log.js'
import { LongRequests } from '../src/limits/long-requests.js'
import { closeCodes } from '../src/protocol/codes.js'
import { Disconnects } from '../src/sockets/disconnects.js'
import { DashboardHandshake } from '../src/sockets/dashboard-handshake.js'
import { Handshake } from '../src/sockets/handshake.js'
import { createFrameRates } from '../src/limits/frame-rate.js'
import { Hub } from '../src/sockets/hub.js'
import { ListUpdates } from '../src/sockets/agent-lists.js'
import { SocketLiveness } from '../src/sockets/liveness.js'
import { EncodedMessage } from '../src/protocol/encoded-message.js'
import { ConnectionSlots } from '../src/limits/connection-slots.js'
import type { SocketServices } from '../src/sockets/services.js'
import { Throttle } from '../src/sockets/throttle.js'
import { Ticker } from '../src/sockets/broadcasts.js'
import { tierHandlers, type Tier } from '../src/sockets/tiers.js'
import { Flusher, Traffic } from '../src/sockets/outbound.js'
import { V1Handshake } from '../src/sockets/v1-handshake.js'

export interface Sockets {
  readonly services: SocketServices
  readonly tiers: { readonly public: Tier, readonly agents: Tier, readonly dashboard: Tier, readonly v1: Tier }
  readonly disconnects: Disconnects
  start (): void
  stop (): Promise<void>
}

function createTiers ({ options, registry, peerKeys }: Core, services: SocketServices): Sockets['tiers'] {
  const { publicWs, agentsWs, dashboardWs, v1Ws, messaging: { maxConnectionsPerPeer: maxPerPeer } } = options
  return {
    public: {
      name: 'public',
      options: publicWs,
      view: 'public',
      handlers: tierHandlers.public,
      requiresAuthentication: false,
      handshake: null,
      timeoutCode: closeCodes.policyViolation,
      takesQueryToken: false,
      protocolPingMs: publicWs.pingIntervalMs
    },
    agents: {
      name: 'agents',
      options: agentsWs,
      view: 'full',
      handlers: tierHandlers.agents,
      requiresAuthentication: true,
      handshake: new Handshake(services),
      timeoutCode: closeCodes.policyViolation,
      takesQueryToken: true,
      // An agent that lives by its socket alone must be heard within its lease.
      protocolPingMs: Math.min(agentsWs.pingIntervalMs, registry.leaseMs / 3)
    },
    dashboard: {
      name: 'dashboard',
      options: dashboardWs,
      view: 'full',
      handlers: tierHandlers.dashboard,
      requiresAuthentication: true,
      handshake: new DashboardHandshake(services),
      timeoutCode: closeCodes.tokenInvalid,
      // The page of existing clients sends it there too, without the fingerprint: its first frame decides.
      takesQueryToken: false,
      protocolPingMs: dashboardWs.pingIntervalMs
    },
    v1: {
      name: 'v1',
      // Nothing is sent at intervals here.
      options: { ...v1Ws, intervalMs: v1Ws.pingIntervalMs },
      view: 'public',
      handlers: tierHandlers.v1,
      requiresAuthentication: true,
      handshake: new V1Handshake(services, { maxPerPeer, maxWithKey: digest => peerKeys.limitOf(digest) }),
      timeoutCode: closeCodes.tokenInvalid,
      takesQueryToken: true,
      protocolPingMs: Math.min(v1Ws.pingIntervalMs, registry.leaseMs / 3)
    }
  }
}

function createServices ({ registry, state, enrollment, authority, dashboard, messaging, options, now, log }: Core): SocketServices {
  const feed = new Feed(registry)
  const hub = new Hub()
  const onError = (error: unknown) => log.error({ err: error }, 'socket')
  return {
    registry,
    enrollment,
    authority,
    options,
    now,
    feed,
    hub,
    slots: new ConnectionSlots({ limits: options.sockets, state, now, onError }),
    rates: createFrameRates(options, now),
    throttle: new Throttle(),
    subscribers: new Subscribers({ feed, bookmarkIntervalMs: options.feed.bookmarkIntervalMs, now }),
    longRequests: new LongRequests(options.feed),
    admission: new Admission({ perSecond: options.admission.upgradesPerSecond, burst: options.admission.burst, now }),
    lists: new ListUpdates(),
    liveness: new SocketLiveness(),
    dashboard,
    messaging,
    flusher: new Flusher(onError),
    traffic: { public: new Traffic(), agents: new Traffic(), dashboard: new Traffic(), v1: new Traffic() },
    onError
  }
}

const pausable: ReadonlySet<DataFrameType> = new Set(['monitoring', 'health', 'alert'])

/** Sends one data frame to all dashboards; of each kind only the newest waits for one that reads slowly, alerts apart. */
function broadcast (hub: Hub, type: DataFrameType, text: string) {
  const message = new EncodedMessage(text)
  for (const connection of hub.connections('dashboard')) {
    const isHeldBack = () => connection.isPaused && pausable.has(type)
    if (!connection.isAuthenticated || isHeldBack()) continue
    if (type === 'alert') connection.push(message)
    // A pause may come while an earlier frame is on its way.
    else connection.sendLatest(type, () => isHeldBack() ? [] : [message])
  }
}

/** The socket side of a registry: told of changes and revocations, ticking from `start` to `stop`. */
export function createSockets (core: Core): Sockets {
  const services = createServices(core)
  const tiers = createTiers(core, services)
  const { hub, lists, liveness, subscribers, longRequests } = services
  const ticker = new Ticker(services, Object.values(tiers))
  const { dashboard } = core
  const producer = new FrameProducer({
    now: monotonicClock(),
    intervalMs: core.options.dashboardWs.intervalMs,
    frames: dashboard.frames,
    logs: dashboard.logs,
    watchers: () => hub.countOf('dashboard'),
    broadcast: (type, text) => broadcast(hub, type, text)
  })
  hub.use(services)
  const isLimited = Object.values(tiers).some(({ options }) => options.maxFleetConnections !== undefined)

  function end (ends: (principal: Principal) => boolean, code: number, text: string) {
    hub.closeWhere(ends, code, text)
    longRequests.endWhere(ends, text)
  }

  function replaced (id: string, by: number) {
    liveness.replaced(id, by)
    longRequests.endWhere(({ type, agentId, incarnation }) => type === 'agent' && agentId === id && (incarnation ?? Infinity) < by, 'Replaced by a newer instance')
  }

  /** An agent has a name that only it may bear from now on. */
  function named (id: string) {
    if (core.messaging.peers.of(id).length > 0) end(principal => principal.subject === id && isImpostor(principal, () => true), closeCodes.notAllowed, 'This name is that of an agent')
  }

  core.registry.on('change', change => {
    lists.change(change)
    subscribers.changed()
    if (change.event === 'registered' && change.before) replaced(change.id, change.after!.incarnation)
    if (change.event === 'registered' && !change.before) named(change.id)
  })
  core.registry.on('reload', differences => {
    for (const difference of differences) lists.change(difference)
    subscribers.changed()
    for (const { id, before, after } of differences) if (before && after && after.incarnation > before.incarnation) replaced(id, after.incarnation)
  })
  core.revocations.on('revoked', revoked => {
    const ends = 'jti' in revoked
      ? ({ tokenId }: { tokenId: string }) => tokenId === revoked.jti
      : ({ type, agentId, incarnation }: { type: string, agentId: string | null, incarnation: number | null }) =>
          (type === 'agent' || type === 'peer') && agentId === revoked.agentId && (incarnation ?? 0) <= revoked.incarnation
    end(ends, closeCodes.tokenInvalid, 'Token revoked')
  })
  core.sessions.on('ended', ({ id }, reason) => {
    // The token ends with the session, rounded to seconds: whichever is seen first, clients are told the same.
    const [code, text] = reason === 'expired' ? [closeCodes.tokenExpired, 'Token expired'] as const : [closeCodes.tokenInvalid, 'Session ended'] as const
    end(({ sessionId }) => sessionId === id, code, text)
  })

  return {
    services,
    tiers,
    disconnects: new Disconnects(services),
    start () {
      lists.start(services, [{ tier: tiers.public, intervalMs: core.options.sockets.agentsUpdateIntervalMs }, { tier: tiers.agents, intervalMs: tiers.agents.options.intervalMs }])
      liveness.start(services)
      ticker.start()
      if (isLimited) services.slots.fleet.start()
      producer.start()
      core.dashboard.logs.add({ level: 'INFO', message: 'Monitoring started', source: 'system' })
    },
    async stop () {
      const { drainMs } = core.options.sockets
      await Promise.all([hub.drain(drainMs), longRequests.drain(drainMs)])
      services.slots.fleet.stop()
      services.throttle.stop()
      producer.stop()
      ticker.stop()
      liveness.stop()
      lists.stop()
      subscribers.close()
    }
  }
}
