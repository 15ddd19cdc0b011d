import type { PeerKeys } from '../auth/peers.js'
import type { Principal } from '../protocol/principal.js'
import { isImpostor, mayParticipate, peerIdOf } from '../auth/rights.js'
import type { Dashboard } from '../dashboard/dashboard.js'
import type { Clock } from '../lib/clock.js'
import { isObject } from '../lib/json.js'
import { Multiset } from '../lib/multiset.js'
import type { Messaging } from '../messaging/messaging.js'
import type { ResolvedOptions } from '../options.js'
import { closeCodes } from '../protocol/codes.js'
import type { TierName } from '../protocol/frames/catalogues.js'
import { PoisonousFrame } from '../protocol/validation.js'
import type { Registry } from '../registry/registry.js'
import type { View } from '../registry/render.js'
import { dataFrameTypes, sendDataFrames, type Broadcasts } from './broadcasts.js'
import type { Connection, ConnectionTier } from './connection.js'
import { channelHandlers } from './handlers/channels.js'
import { accountHandlers, commonHandlers, discoveryHandlers } from './handlers/common.js'
import { dashboardHandlers } from './handlers/dashboard.js'
import { handlersByType, type FrameHandler } from './dispatcher.js'
import { directHandlers, requestHandlers } from './handlers/direct.js'
import { v1Handlers } from './handlers/v1.js'
import { Handshake, type HandshakePolicy, type HandshakeServices, type Refusal } from './handshake.js'
import type { Hub } from './hub.js'

/** A tier is data: its options, the frames of its clients, how they authenticate, and what they see. */
export interface Tier extends ConnectionTier {
  readonly view: View
  readonly handlers: ReadonlyMap<string, FrameHandler>
  /** Null if the tier requires no authentication. */
  readonly handshake: Handshake | null
  /** The close code for a client that does not authenticate in time. */
  readonly timeoutCode: number
  /** Whether the query of the upgrade may contain a token. */
  readonly acceptsQueryToken: boolean
  /** Silence after which the server sends a protocol ping (ms). */
  readonly protocolPingMs: number
}

export type Tiers = Readonly<Record<TierName, Tier>>

/** The frames that clients of each tier may send, by `type`. */
export const tierHandlers: Readonly<Record<TierName, ReadonlyMap<string, FrameHandler>>> = {
  public: handlersByType({ ...commonHandlers, ...discoveryHandlers }),
  agents: handlersByType({ ...commonHandlers, ...channelHandlers, ...directHandlers, ...requestHandlers, ...accountHandlers }),
  dashboard: handlersByType({ ...commonHandlers, ...dashboardHandlers }),
  v1: handlersByType({ ...v1Handlers, ping: commonHandlers.ping })
}

interface TierServices extends HandshakeServices {
  options: ResolvedOptions
  registry: Registry
  messaging: Messaging
  dashboard: Dashboard
  broadcasts: Broadcasts
  peerKeys: PeerKeys
  hub: Hub
  now: Clock
}

export function createTiers (services: TierServices): Tiers {
  const { options: { publicWs, agentsWs, dashboardWs, v1Ws }, registry: { leaseMs } } = services
  return {
    public: {
      name: 'public',
      options: publicWs,
      view: 'public',
      handlers: tierHandlers.public,
      requiresAuthentication: false,
      handshake: null,
      timeoutCode: closeCodes.policyViolation,
      acceptsQueryToken: false,
      protocolPingMs: publicWs.pingIntervalMs
    },
    agents: {
      name: 'agents',
      options: agentsWs,
      view: 'full',
      handlers: tierHandlers.agents,
      requiresAuthentication: true,
      handshake: new Handshake(agentsPolicy(services), services),
      timeoutCode: closeCodes.policyViolation,
      acceptsQueryToken: true,
      // An agent whose only heartbeats are pongs must be heard within its lease.
      protocolPingMs: Math.min(agentsWs.pingIntervalMs, leaseMs / 3)
    },
    dashboard: {
      name: 'dashboard',
      options: dashboardWs,
      view: 'full',
      handlers: tierHandlers.dashboard,
      requiresAuthentication: true,
      handshake: new Handshake(dashboardPolicy(services), services),
      timeoutCode: closeCodes.tokenInvalid,
      // Existing pages send the token in the query too, but without the fingerprint: their first frame decides.
      acceptsQueryToken: false,
      protocolPingMs: dashboardWs.pingIntervalMs
    },
    v1: {
      name: 'v1',
      // No frames are sent on an interval.
      options: { ...v1Ws, intervalMs: v1Ws.pingIntervalMs },
      view: 'public',
      handlers: tierHandlers.v1,
      requiresAuthentication: true,
      handshake: new Handshake(v1Policy(services), services),
      timeoutCode: closeCodes.tokenInvalid,
      acceptsQueryToken: true,
      protocolPingMs: Math.min(v1Ws.pingIntervalMs, leaseMs / 3)
    }
  }
}

/** The first frame of `/public/ws`. */
export function publicWelcome (revision: string): object {
  return {
    type: 'welcome',
    message: 'Connected to ARCP Public API WebSocket',
    features: ['agent_updates', 'public_stats', 'discovery_events', 'paginated_discovery'],
    commands: { ping: 'Send ping to check connection', get_discovery: 'Get agent discovery data with pagination' },
    pagination: {
      default_page_size: 30,
      max_page_size: 100,
      usage: "Send {type: 'get_discovery', page: 1, page_size: 30, agent_type: 'optional'}"
    },
    revision
  }
}

/** A refusal on `/agents/ws` of a client that has sent no valid token: existing clients read the text from `auth_error`. */
function authError (authError: string, { reason = authError, audit }: { reason?: string, audit?: string } = {}): Refusal {
  return { code: closeCodes.policyViolation, reason, authError, ...(audit !== undefined && { audit }) }
}

const tokenExpired: Refusal = { code: closeCodes.tokenExpired, reason: 'Token expired' }
const tokenInvalid: Refusal = { code: closeCodes.tokenInvalid, reason: 'Invalid token' }
const otherSubject: Refusal = { code: closeCodes.tokenInvalid, reason: 'The token belongs to another subject' }
const temporaryToken = 'Temporary tokens cannot open sockets'

/** `/agents/ws`: agents, users and admins. The texts are those of existing clients. */
function agentsPolicy ({ registry, messaging, broadcasts, now, options }: TierServices): HandshakePolicy {
  function success (connection: Connection, { agentId, role, expiresAt }: Principal, requestId: unknown) {
    const { leaseMs } = registry
    const { maxMessageSize, messagesPerSecond, burst } = connection.tier.options
    return {
      type: 'auth_success',
      message: 'Authentication successful',
      agent_id: agentId,
      role,
      connectionId: connection.id,
      serverTime: now() / 1000,
      expiresAt,
      heartbeatInterval: leaseMs / 3000,
      leaseMs,
      limits: { maxMessageSize, messagesPerSecond, burst, channels: options.messaging.maxSubscriptions },
      ...(typeof requestId === 'string' && { requestId })
    }
  }

  return {
    refusals: {
      invalid: tokenInvalid,
      expired: tokenExpired,
      'not-allowed': { code: closeCodes.notAllowed, reason: 'Insufficient permissions', audit: temporaryToken }
    },
    invalidToken: authError('Invalid token'),

    awaitCredentials (connection) {
      connection.sendFrame({ type: 'auth_required', message: 'Send your authentication token' })
    },

    readFirstFrame (connection, frame) {
      if (frame === undefined || frame instanceof PoisonousFrame) return authError('Invalid JSON')
      if (!isObject(frame)) return authError('Authentication failed')
      const { token, type, observe, requestId } = frame
      if (token) {
        connection.observes = observe === true
        return { token, requestId }
      }
      if (type === 'ping') {
        connection.pong(frame)
        return null
      }
      const isEarly = typeof type === 'string' && type !== 'auth' && tierHandlers.agents.has(type)
      const isHeld = isEarly && connection.inbound.holdUntilAuthenticated(frame)
      return isHeld ? null : authError('Token required', { reason: 'Authentication required' })
    },

    objection ({ type }) {
      return type === 'temp' ? authError('Insufficient permissions', { audit: temporaryToken }) : undefined
    },

    accepted (connection, principal, requestId) {
      connection.sendFrame(success(connection, principal, requestId))
      broadcasts.sendList(connection)
      connection.isPeer = mayParticipate(principal)
      if (connection.isPeer) messaging.addPeer(connection)
      connection.inbound.releaseEarly()
    },

    renewalObjection ({ authenticatedPrincipal: { subject, role } }, principal) {
      return principal.subject === subject && principal.role === role ? undefined : otherSubject
    },

    renewed (connection, { requestId }) {
      connection.sendFrame(success(connection, connection.authenticatedPrincipal, requestId))
    }
  }
}

/** `/dashboard/ws`: admins. There is no reply to a valid token except the data frames, and only the close code to others. */
function dashboardPolicy ({ dashboard, slots, options: { dashboard: { requireFingerprint } } }: TierServices): HandshakePolicy {
  const notAdmin: Refusal = { code: closeCodes.notAllowed, reason: 'Admin role required', audit: 'Admin role required' }
  const log = (message: string, { subject }: Principal) => {
    dashboard.logs.add({ level: 'INFO', message, source: 'dashboard', user_id: subject })
  }
  return {
    refusals: { invalid: tokenInvalid, expired: tokenExpired, 'not-allowed': notAdmin },
    invalidToken: tokenInvalid,

    awaitCredentials () {},

    readFirstFrame (connection, frame) {
      if (isObject(frame) && frame.type === 'ping') {
        connection.pong(frame)
        return null
      }
      if (!isObject(frame) || frame.type !== 'auth') return { code: closeCodes.tokenInvalid, reason: 'Auth frame required' }
      if (!frame.token) return { code: closeCodes.tokenInvalid, reason: 'Authentication token required' }
      return { token: frame.token, fingerprint: frame.fingerprint }
    },

    fingerprintOf ({ fingerprint: given }) {
      const fingerprint = given ?? (requireFingerprint ? '' : undefined)
      return fingerprint === undefined || typeof fingerprint === 'string' ? fingerprint : null
    },

    objection ({ type }) {
      return type === 'admin' ? undefined : notAdmin
    },

    accepted (connection, principal) {
      log(`New connection (${slots.countOf('dashboard')} total)`, principal)
      sendDataFrames(connection, dashboard, dataFrameTypes)
    },

    renewed (connection, frame) {
      connection.ack(frame)
    },

    closed (principal) {
      log(`Disconnected (${slots.countOf('dashboard')} remaining)`, principal)
    }
  }
}

/** The publishable key of a peer that has no token. */
const keyOf = ({ type, keyDigest }: Principal) => type === 'peer' ? keyDigest : null

/** `/v1`: peers, by the credentials of their upgrade only. */
function v1Policy ({ registry, messaging, peerKeys, now, options }: TierServices): HandshakePolicy {
  const { agentsWs, v1Ws, messaging: { maxConnectionsPerPeer } } = options
  // Either tier must be able to receive what the other sends: they share inboxes.
  const maxMessageSize = Math.min(v1Ws.maxMessageSize, agentsWs.maxMessageSize)
  const connectionsByKey = new Multiset()
  const invalid: Refusal = { code: closeCodes.tokenInvalid, reason: 'Invalid token or key' }
  const notAllowed: Refusal = { code: closeCodes.notAllowed, reason: 'Insufficient permissions', audit: 'Insufficient permissions' }
  return {
    refusals: { invalid, expired: tokenExpired, 'not-allowed': notAllowed },
    invalidToken: invalid,

    objection (principal) {
      if (!mayParticipate(principal) || isImpostor(principal, id => registry.get(id) !== undefined)) return notAllowed
      const own = messaging.peers.of(peerIdOf(principal)).filter(({ dialect }) => dialect === 'v1')
      if (own.length >= maxConnectionsPerPeer) return { code: closeCodes.overQuota, reason: 'Too many connections of this peer' }
      const key = keyOf(principal)
      if (key === null || connectionsByKey.count(key) < peerKeys.limitOf(key)) return undefined
      return { code: closeCodes.overQuota, reason: 'Too many connections with this key' }
    },

    accepting (principal) {
      const key = keyOf(principal)
      if (key !== null) connectionsByKey.add(key)
    },

    accepted (connection, { expiresAt, ownMetadata }) {
      const { peerId } = connection
      connection.isPeer = true
      const metadata = ownMetadata && { metadata: ownMetadata }
      connection.sendFrame({ type: 'welcome', peerId, expiresAt, serverTime: now() / 1000, maxMessageSize, ...metadata })
      messaging.addPeer(connection)
    },

    closed (principal) {
      const key = keyOf(principal)
      if (key !== null) connectionsByKey.delete(key)
    }
  }
}
