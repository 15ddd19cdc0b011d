import type { Grant } from '../protocol/schemas/messaging.js'

/** Kinds of token. Every endpoint and socket lists which it takes. */
export type TokenType = 'temp' | 'agent' | 'user' | 'admin' | 'peer'
export type Role = 'agent' | 'user' | 'admin' | 'peer'

/** Who is asking: what is left of a token once it was checked. */
export interface Principal {
  readonly type: TokenType
  readonly role: Role
  /** The `sub` of the token. */
  readonly subject: string
  /** Of a peer: the agent that made its token, if one did. */
  readonly agentId: string | null
  readonly incarnation: number | null
  readonly tokenId: string
  /** Session of an admin; also of tokens minted in it. */
  readonly sessionId: string | null
  /** Epoch seconds; null for a principal of the host that does not end. */
  readonly expiresAt: number | null
  readonly scopes: readonly string[]
  /** Digest of a key: of a temporary token the one it was given for, of an agent the one that owns it, of a peer the publishable one that it came with. */
  readonly keyDigest: string | null
  /** Of a temporary token: the type of agent it was asked for, in lower case. */
  readonly agentType?: string | null
  /** Epoch milliseconds; absent for a principal of the host. */
  readonly issuedAt?: number | null
  /** What it may do with channels and peers; without any, what is usual for its type. */
  readonly grants?: readonly Grant[] | null
  /** What others learn of it. */
  readonly metadata?: Readonly<Record<string, unknown>> | null
  /** What only a peer itself is told, in its welcome. */
  readonly ownMetadata?: Readonly<Record<string, unknown>> | null
}
