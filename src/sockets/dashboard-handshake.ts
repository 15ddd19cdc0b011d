import { isProblem } from '../errors.js'
import type { Principal } from '../protocol/principal.js'
import { closeCodes } from '../protocol/codes.js'
import type { DashboardAuthFrame } from '../protocol/frames/dashboard.js'
import type { Connection } from './connection.js'
import { isFrameLike } from '../protocol/parse.js'
import { pongFor, type TierHandshake, type UpgradeCredentials } from './handshake.js'
import { dataFrameTypes, sendDataFrames } from './broadcasts.js'
import { reportRefusal } from './refusals.js'
import type { SocketServices } from './services.js'

type Verdict = { principal: Principal } | { code: number, reason: string }

const invalid = { code: closeCodes.tokenInvalid, reason: 'Invalid token' }
const notAdmin = { code: closeCodes.notAllowed, reason: 'Admin role required' }

/**
 * How a dashboard becomes an admin's: the server waits for an `auth` frame and says nothing; that it worked is told by
 * the first data frame, that it did not by the close code.
 */
export class DashboardHandshake implements TierHandshake {
  readonly #services: SocketServices

  constructor (services: SocketServices) {
    this.#services = services
  }

  begin (connection: Connection, credentials: UpgradeCredentials): void {
    if (credentials === null) return
    if ('principal' in credentials) return this.#settle(connection, this.#verdict(connection, credentials.principal))
    if (credentials.refused === 'expired') return connection.close(closeCodes.tokenExpired, 'Token expired')
    if (credentials.refused === 'not-allowed') reportRefusal(this.#services, connection, null, notAdmin.reason)
    this.#settle(connection, credentials.refused === 'invalid' ? invalid : notAdmin)
  }

  receive (connection: Connection, frame: unknown): Promise<void> | void {
    if (isFrameLike(frame) && frame.type === 'ping') return connection.sendFrame(pongFor(frame))
    if (!isFrameLike(frame) || frame.type !== 'auth') return connection.close(closeCodes.tokenInvalid, 'Auth frame required')
    if (!frame.token) return connection.close(closeCodes.tokenInvalid, 'Authentication token required')
    return this.#authenticate(connection, frame)
  }

  /** A later `auth` frame: a token that is not right leaves the one that is. */
  async replace (connection: Connection, frame: DashboardAuthFrame): Promise<void> {
    const verdict = await this.#check(connection, frame)
    if (!connection.isOpen) return
    if (!('principal' in verdict)) return connection.fail('action_not_permitted', verdict.reason, frame)
    this.#services.hub.replaceToken(connection, verdict.principal)
    connection.ack(frame)
  }

  left ({ principal }: Connection): void {
    const { hub, dashboard } = this.#services
    dashboard.logs.add({ level: 'INFO', message: `Disconnected (${hub.countOf('dashboard')} remaining)`, source: 'dashboard', user_id: principal!.subject })
  }

  async #authenticate (connection: Connection, frame: Record<string, unknown>): Promise<void> {
    const verdict = await this.#check(connection, frame)
    // The socket may have gone while the token was checked.
    if (connection.isOpen) this.#settle(connection, verdict)
  }

  async #check (connection: Connection, { token, fingerprint }: Record<string, unknown>): Promise<Verdict> {
    const { authority, options } = this.#services
    if (typeof token !== 'string') return invalid
    const print = fingerprint ?? (options.dashboard.requireFingerprint ? '' : undefined)
    if (print !== undefined && typeof print !== 'string') return invalid
    try {
      return this.#verdict(connection, await authority.authenticate(token, { fingerprint: print }))
    } catch (error) {
      if (isProblem(error) && error.statusCode < 500) return invalid
      throw error
    }
  }

  #verdict (connection: Connection, principal: Principal): Verdict {
    if (principal.type === 'admin') return { principal }
    reportRefusal(this.#services, connection, principal, notAdmin.reason)
    return notAdmin
  }

  #settle (connection: Connection, verdict: Verdict) {
    const { hub, dashboard } = this.#services
    if (!('principal' in verdict)) return connection.close(verdict.code, verdict.reason)
    if (hub.isFull(connection.tier)) return connection.close(closeCodes.tryAgainLater, 'Too many connections')
    hub.identify(connection, verdict.principal)
    dashboard.logs.add({ level: 'INFO', message: `New connection (${hub.countOf('dashboard')} total)`, source: 'dashboard', user_id: verdict.principal.subject })
    sendDataFrames(connection, dashboard, dataFrameTypes)
  }
}
