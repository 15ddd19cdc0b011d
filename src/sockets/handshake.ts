import type { Authority } from '../auth/authority.js'
import type { Principal } from '../protocol/principal.js'
import { isProblem } from '../errors.js'
import type { ConnectionSlots } from '../limits/connection-slots.js'
import { closeCodes } from '../protocol/codes.js'
import type { Connection } from './connection.js'
import type { Hub } from './hub.js'

/** The credentials of an upgrade: a principal, the reason why they are refused, or null for none. */
export type UpgradeCredentials = { principal: Principal } | { refused: RefusedCredentials } | null
type RefusedCredentials = 'invalid' | 'expired' | 'not-allowed'

/** How a connection is refused. */
export interface Refusal {
  readonly code: number
  /** The reason of the close frame. */
  readonly reason: string
  /** The message of an `auth_error` frame that precedes the close frame. */
  readonly authError?: string
  /** The text of an audit entry. */
  readonly audit?: string
}

/** The first frame of a client: credentials, a refusal, or null if the frame needs nothing more. */
type FirstFrame = Credentials | Refusal | null
interface Credentials { readonly token: unknown, readonly fingerprint?: unknown, readonly requestId?: unknown }

/** The frame that replaces a token. */
interface RenewalFrame { readonly token: string, readonly fingerprint?: string, readonly requestId?: string }

/** What differs between the handshakes of the tiers. */
export interface HandshakePolicy {
  /** Refusals of the credentials of an upgrade. */
  readonly refusals: Readonly<Record<RefusedCredentials, Refusal>>
  /** The refusal of an invalid token in a frame. */
  readonly invalidToken: Refusal
  /** An upgrade without credentials: requests them, or returns a refusal. Without this method it is refused as `invalidToken`. */
  awaitCredentials? (connection: Connection): Refusal | void
  /** Reads a frame of an unauthenticated connection; undefined is one that is not JSON. */
  readFirstFrame? (connection: Connection, frame: unknown): FirstFrame
  /** The fingerprint to check a token with; null refuses the token. */
  fingerprintOf? (credentials: Credentials): string | undefined | null
  /** Why a principal is refused, or undefined. */
  objection (principal: Principal): Refusal | undefined
  /** Called before an accepted connection is authenticated. */
  accepting? (principal: Principal): void
  /** Sends the first frames of an authenticated connection. */
  accepted (connection: Connection, principal: Principal, requestId?: unknown): void
  /** Why a token may not replace the present one, or undefined. */
  renewalObjection? (connection: Connection, principal: Principal): Refusal | undefined
  /** Acknowledges a new token. */
  renewed? (connection: Connection, frame: RenewalFrame): void
  closed? (principal: Principal): void
}

export interface HandshakeServices {
  authority: Authority
  hub: Hub
  slots: ConnectionSlots
  /** Writes an audit entry about a refused connection. */
  audit: (connection: Connection, principal: Principal | null, text: string) => void
}

const isRefusal = (first: Credentials | Refusal): first is Refusal => 'code' in first

/** The authentication of the connections of a tier: by the upgrade, by the first frame, and by later tokens. */
export class Handshake {
  readonly policy: HandshakePolicy
  readonly #services: HandshakeServices

  constructor (policy: HandshakePolicy, services: HandshakeServices) {
    this.policy = policy
    this.#services = services
  }

  /** Starts the handshake of a new connection. */
  begin (connection: Connection, credentials: UpgradeCredentials): void {
    if (credentials === null) {
      const refusal = this.policy.awaitCredentials ? this.policy.awaitCredentials(connection) : this.policy.invalidToken
      if (refusal) this.#refuse(connection, null, refusal)
    } else if ('refused' in credentials) {
      this.#refuse(connection, null, this.policy.refusals[credentials.refused])
    } else {
      this.#decide(connection, credentials.principal)
    }
  }

  /** Handles a frame of an unauthenticated connection. */
  receive (connection: Connection, frame: unknown): Promise<void> | void {
    const first = this.policy.readFirstFrame?.(connection, frame) ?? null
    if (first === null) return
    if (isRefusal(first)) return this.#refuse(connection, null, first)
    return this.#authenticate(connection, first)
  }

  /** Handles a frame that replaces the token. The present token stays valid if the new one is refused. */
  async renew (connection: Connection, frame: RenewalFrame): Promise<void> {
    const principal = await this.#check(frame)
    if (!connection.isOpen) return
    const refusal = principal ? this.#renewalObjection(connection, principal) : this.policy.invalidToken
    if (principal && !refusal) {
      this.#services.hub.renew(connection, principal)
      this.policy.renewed?.(connection, frame)
    } else if (refusal) {
      this.#audit(connection, principal, refusal)
      connection.fail('action_not_permitted', refusal.reason, frame)
    }
  }

  /** An authenticated connection has closed. */
  closed (connection: Connection): void {
    if (connection.principal) this.policy.closed?.(connection.principal)
  }

  async #authenticate (connection: Connection, credentials: Credentials): Promise<void> {
    const principal = await this.#check(credentials)
    // The socket may have closed while the token was checked.
    if (!connection.isOpen) return
    if (!principal) return this.#refuse(connection, null, this.policy.invalidToken)
    this.#decide(connection, principal, credentials.requestId)
  }

  #decide (connection: Connection, principal: Principal, requestId?: unknown) {
    const { hub, slots } = this.#services
    const refusal = this.policy.objection(principal)
    if (refusal) return this.#refuse(connection, principal, refusal)
    if (slots.isFull(connection.tier)) return connection.close(closeCodes.tryAgainLater, 'Too many connections')
    this.policy.accepting?.(principal)
    hub.authenticate(connection, principal)
    this.policy.accepted(connection, principal, requestId)
  }

  #renewalObjection (connection: Connection, principal: Principal): Refusal | undefined {
    return this.policy.renewalObjection?.(connection, principal) ?? this.policy.objection(principal)
  }

  /** @returns null for an invalid token; any other error is thrown */
  async #check (credentials: Credentials): Promise<Principal | null> {
    const { token } = credentials
    const fingerprint = this.policy.fingerprintOf?.(credentials)
    if (typeof token !== 'string' || fingerprint === null) return null
    try {
      return await this.#services.authority.authenticate(token, { fingerprint })
    } catch (error) {
      if (isProblem(error) && error.statusCode < 500) return null
      throw error
    }
  }

  #refuse (connection: Connection, principal: Principal | null, refusal: Refusal) {
    this.#audit(connection, principal, refusal)
    if (refusal.authError !== undefined) connection.sendFrame({ type: 'auth_error', message: refusal.authError })
    connection.close(refusal.code, refusal.reason)
  }

  #audit (connection: Connection, principal: Principal | null, { audit }: Refusal) {
    if (audit !== undefined) this.#services.audit(connection, principal, audit)
  }
}
