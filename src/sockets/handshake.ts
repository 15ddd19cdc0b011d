import { isProblem } from '../errors.js'
import type { Principal } from '../protocol/principal.js'
import { closeCodes } from '../protocol/codes.js'
import type { Connection } from './connection.js'
import { isFrameLike, PoisonousFrame, type Frame } from '../protocol/parse.js'
import type { AuthFrame } from '../protocol/frames/agents.js'
import { reportRefusal } from './refusals.js'
import type { SocketServices } from './services.js'

/** Seconds before the end of a token at which its bearer is told. */
export const expiryNoticeSeconds = 30

/** What the upgrade brought along: a principal, a token that is not valid, or nothing. */
export type UpgradeCredentials = { principal: Principal } | { refused: 'invalid' | 'expired' | 'not-allowed' } | null

/** Text that goes both into `auth_error` and into the reason of the close frame, as existing clients know them. */
type Refusal = 'Token required' | 'Invalid token' | 'Insufficient permissions' | 'Invalid JSON' | 'Authentication failed'

/** How a connection of a tier with authentication becomes somebody's. */
export interface TierHandshake {
  /** The first thing that happens on a new connection. */
  begin (connection: Connection, credentials: UpgradeCredentials): void
  /** A frame on a connection that is not authenticated yet, where there may be one; undefined is one that is not JSON. */
  receive? (connection: Connection, frame: unknown): Promise<void> | void
  /** An `auth` frame on a connection that has a token already, where there is such a frame. */
  replace? (connection: Connection, frame: AuthFrame): Promise<void>
  /** A connection that was somebody's is gone. */
  left? (connection: Connection): void
}

/** The handshake of `/agents/ws`, with texts as existing clients know them. */
export class Handshake implements TierHandshake {
  readonly #services: SocketServices

  constructor (services: SocketServices) {
    this.#services = services
  }

  begin (connection: Connection, credentials: UpgradeCredentials): void {
    if (credentials === null) return connection.sendFrame({ type: 'auth_required', message: 'Send your authentication token' })
    if ('principal' in credentials) return this.#succeed(connection, credentials.principal)
    if (credentials.refused === 'expired') return connection.close(closeCodes.tokenExpired, 'Token expired')
    if (credentials.refused === 'invalid') return connection.close(closeCodes.tokenInvalid, 'Invalid token')
    reportRefusal(this.#services, connection, null, 'A temporary token opens no socket')
    connection.close(closeCodes.notAllowed, 'Insufficient permissions')
  }

  receive (connection: Connection, frame: unknown): Promise<void> | void {
    if (frame === undefined || frame instanceof PoisonousFrame) return refuse(connection, 'Invalid JSON')
    if (!isFrameLike(frame)) return refuse(connection, 'Authentication failed')
    if (frame.token) return this.#authenticate(connection, frame)
    if (frame.type === 'ping') return connection.sendFrame(pongFor(frame))
    const isEarly = typeof frame.type === 'string' && frame.type !== 'auth' && connection.tier.handlers.has(frame.type)
    if (!isEarly || !connection.hold(frame as Frame)) refuse(connection, 'Token required', 'Authentication required')
  }

  /** Takes a new token for a connection that has one: it must be the same subject's. */
  async replace (connection: Connection, { token, requestId }: AuthFrame): Promise<void> {
    const principal = await this.#check(token)
    if (!connection.isOpen) return
    if (!principal || principal.subject !== connection.principal!.subject || principal.role !== connection.principal!.role) {
      return connection.fail('action_not_permitted', principal ? 'The token belongs to somebody else' : 'Invalid token', { requestId })
    }
    this.#services.hub.replaceToken(connection, principal)
    connection.sendFrame(this.#success(connection, requestId))
  }

  async #authenticate (connection: Connection, { token, observe, requestId }: Record<string, unknown>): Promise<void> {
    const principal = typeof token === 'string' ? await this.#check(token) : null
    // The socket may have gone while the token was checked.
    if (!connection.isOpen) return
    if (!principal) return refuse(connection, 'Invalid token')
    if (principal.type === 'temp') {
      reportRefusal(this.#services, connection, principal, 'A temporary token opens no socket')
      return refuse(connection, 'Insufficient permissions')
    }
    connection.observes = observe === true
    if (this.#services.hub.isFull(connection.tier)) return connection.close(closeCodes.tryAgainLater, 'Too many connections')
    this.#succeed(connection, principal, requestId)
  }

  /** @returns null for a token that is not valid; whatever else goes wrong is an error of ours */
  async #check (token: string): Promise<Principal | null> {
    try {
      return await this.#services.authority.authenticate(token)
    } catch (error) {
      if (isProblem(error) && error.statusCode < 500) return null
      throw error
    }
  }

  #succeed (connection: Connection, principal: Principal, requestId?: unknown) {
    this.#services.hub.identify(connection, principal)
    connection.sendFrame(this.#success(connection, requestId))
    this.#services.lists.sendTo(connection)
    connection.isPeer = connection.rights.mayParticipate
    if (connection.isPeer) this.#services.messaging.addPeer(connection)
    connection.releaseHeld()
  }

  #success (connection: Connection, requestId: unknown) {
    const { agentId, role, expiresAt } = connection.principal!
    const { registry, now, options: { messaging } } = this.#services
    const { maxMessageSize, messagesPerSecond, burst } = connection.tier.options
    return {
      type: 'auth_success',
      message: 'Authentication successful',
      agent_id: agentId,
      role,
      connectionId: connection.id,
      serverTime: now() / 1000,
      expiresAt,
      heartbeatInterval: registry.leaseMs / 3000,
      leaseMs: registry.leaseMs,
      limits: { maxMessageSize, messagesPerSecond, burst, channels: messaging.maxSubscriptions },
      ...(typeof requestId === 'string' && { requestId })
    }
  }
}

export function pongFor ({ requestId }: { requestId?: unknown }) {
  return { type: 'pong', timestamp: Date.now() / 1000, ...(typeof requestId === 'string' && { requestId }) }
}

function refuse (connection: Connection, message: Refusal, reason: string = message) {
  connection.sendFrame({ type: 'auth_error', message })
  connection.close(closeCodes.policyViolation, reason)
}
