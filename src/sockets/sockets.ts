import type { Authority } from '../auth/authority.js'
import type { PeerKeys } from '../auth/peers.js'
import type { Principal } from '../protocol/principal.js'
import type { Dashboard } from '../dashboard/dashboard.js'
import type { Clock } from '../lib/clock.js'
import { ConnectionSlots } from '../limits/connection-slots.js'
import { createFrameRates } from '../limits/frame-rate.js'
import type { Messaging } from '../messaging/messaging.js'
import type { ResolvedOptions } from '../options.js'
import { tierNames, type TierName } from '../protocol/frames/catalogues.js'
import type { Enrollment } from '../registry/enrollment.js'
import type { Feed } from '../registry/feed/change-log.js'
import type { FeedSubscribers } from '../registry/feed/subscribers.js'
import type { Registry } from '../registry/registry.js'
import type { KeyValueReplica } from '../storage/kv-store.js'
import { Broadcasts } from './broadcasts.js'
import { Connection, type ConnectionOptions, type ConnectionPorts } from './connection.js'
import { Dispatcher } from './dispatcher.js'
import type { UpgradeCredentials } from './handshake.js'
import { Hub, PeerDisconnects } from './hub.js'
import { Throttle } from './inbound.js'
import { AgentHeartbeats, KeepAlive } from './liveness.js'
import { Flusher, Traffic } from './outbound.js'
import { createTiers, publicWelcome, type Tier, type Tiers } from './tiers.js'
import { Watches } from './watches.js'

interface SocketsOptions {
  options: ResolvedOptions
  registry: Registry
  enrollment: Enrollment
  authority: Authority
  messaging: Messaging
  dashboard: Dashboard
  peerKeys: PeerKeys
  kvReplica: KeyValueReplica
  feed: Feed
  subscribers: FeedSubscribers
  now: Clock
  onError: (error: unknown) => void
}

/** The WebSocket side of a registry. */
export interface Sockets {
  readonly tiers: Tiers
  readonly hub: Hub
  readonly slots: ConnectionSlots
  readonly traffic: Readonly<Record<TierName, Traffic>>
  readonly broadcasts: Broadcasts
  readonly heartbeats: AgentHeartbeats
  readonly watches: Watches
  readonly disconnects: PeerDisconnects
  /** Creates the connection of a new socket. */
  open (tier: Tier, socket: Pick<ConnectionOptions, 'transport' | 'encoding' | 'address' | 'slot'>): Connection
  /** Sends the first frames of a new connection, or refuses it. */
  begin (connection: Connection, credentials: UpgradeCredentials): void
  start (): void
  /** Stops all timers. The connections must be drained first. */
  stop (): void
}

export function createSockets (services: SocketsOptions): Sockets {
  const { options, registry, enrollment, messaging, dashboard, kvReplica, now, onError } = services
  const traffic = { public: new Traffic(), agents: new Traffic(), dashboard: new Traffic(), v1: new Traffic() }
  const hub = new Hub()
  const slots = new ConnectionSlots({ limits: options.sockets, kvReplica, now, onError })
  const watches = new Watches(services)
  const broadcasts = new Broadcasts({ hub, registry, options, now })
  const heartbeats = new AgentHeartbeats({ registry, hub, now, onError })
  const tiers = createTiers({ ...services, hub, slots, broadcasts, audit })
  const keepAlive = new KeepAlive({ hub, tiers: Object.values(tiers), now })
  const throttle = new Throttle()
  const shared = {
    now,
    throttle,
    onError,
    flusher: new Flusher(onError),
    rates: createFrameRates(options, now),
    maxBufferedBytes: options.sockets.maxBufferedBytes,
    closed: (connection: Connection, wasClean: boolean) => { hub.remove(connection, wasClean) }
  }
  const ports = {
    public: portsOf('public'),
    agents: portsOf('agents'),
    dashboard: portsOf('dashboard'),
    v1: portsOf('v1')
  }

  function portsOf (name: TierName): ConnectionPorts {
    const { handlers, handshake, view } = tiers[name]
    const context = { registry, enrollment, messaging, dashboard, watches, now, view, handshake }
    const dispatcher = new Dispatcher({ handlers, context, audit: auditFrame, onError })
    return { ...shared, traffic: traffic[name], dispatcher }
  }

  function auditFrame (connection: Connection, error: string) {
    audit(connection, connection.principal, error)
  }

  function audit ({ tier, address }: Connection, principal: Principal | null, error: string) {
    const details = { user_role: principal?.role, error }
    dashboard.audit.record({ type: 'permission_denied', subject: principal?.subject, target: tier.options.path, address, details })
  }

  return {
    tiers,
    hub,
    slots,
    traffic,
    broadcasts,
    heartbeats,
    watches,
    disconnects: new PeerDisconnects({ hub, messaging }),

    open (tier, socket) {
      return new Connection({ ...socket, tier, ports: ports[tier.name] })
    },

    begin (connection, credentials) {
      const { handshake } = tiers[connection.tier.name]
      if (handshake === null) connection.sendFrame(publicWelcome(registry.revision))
      else handshake.begin(connection, credentials)
    },

    start () {
      const isFleetLimited = tierNames.some(name => tiers[name].options.maxFleetConnections !== undefined)
      broadcasts.start()
      heartbeats.start()
      keepAlive.start()
      if (isFleetLimited) slots.fleet.start()
    },

    stop () {
      slots.fleet.stop()
      throttle.stop()
      keepAlive.stop()
      heartbeats.stop()
      broadcasts.stop()
    }
  }
}
