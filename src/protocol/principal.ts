import type { Grant } from './schemas/messaging.js'

/** Kinds of token. Every endpoint and socket lists the kinds that it accepts. */
export type TokenType = 'temp' | 'agent' | 'user' | 'admin' | 'peer'
export type Role = 'agent' | 'user' | 'admin' | 'peer'

/** An authenticated client: the claims of its token after they were checked. */
export interface Principal {
  readonly type: TokenType
  readonly role: Role
  /** The `sub` claim. */
  readonly subject: string
  /** For a peer: the agent that minted its token, if an agent did. */
  readonly agentId: string | null
  readonly incarnation: number | null
  readonly tokenId: string
  /** The session of an admin, also of tokens minted in it. */
  readonly sessionId: string | null
  /** Epoch seconds; null for a principal of the host that does not expire. */
  readonly expiresAt: number | null
  readonly scopes: readonly string[]
  /**
   * Digest of a key. For a temporary token: the key that requested it. For an agent: the key that owns it. For a peer:
   * the publishable key that it connected with.
   */
  readonly keyDigest: string | null
  /** For a temporary token: the type of agent that it was requested for, in lower case. */
  readonly agentType?: string | null
  /** Epoch milliseconds; absent for a principal of the host. */
  readonly issuedAt?: number | null
  /** Rights to channels and peers. Without grants the defaults of the token type apply. */
  readonly grants?: readonly Grant[] | null
  /** Shown to other peers. */
  readonly metadata?: Readonly<Record<string, unknown>> | null
  /** Shown only to the peer itself, in its welcome. */
  readonly ownMetadata?: Readonly<Record<string, unknown>> | null
}

export type AuthEventType =
  | 'login_success' | 'login_failed' | 'login_limited'
  | 'temp_token_success' | 'temp_token_failed' | 'temp_token_limited'
  | 'logout' | 'pin_set' | 'pin_verify_success' | 'pin_verify_failed'
  | 'token_revoked' | 'agent_revoked' | 'lockout' | 'permission_denied'

/** An entry of the audit log. No member contains a secret, a token or a PIN. */
export interface AuthEvent {
  type: AuthEventType
  /** The acting client: the name of an admin or the id of an agent. */
  subject?: string
  /** The object of the action, if it is not the subject itself. */
  target?: string
  /** The client's address. */
  address?: string
  /** Further scalar values. */
  details?: Record<string, unknown>
}

export type AuthEventListener = (event: AuthEvent) => void
