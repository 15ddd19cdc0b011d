import { Type, type Static } from '@sinclair/typebox'
import { TypeCompiler } from '@sinclair/typebox/compiler'
import { Nullable } from './common.js'
import { Grants, PeerMetadata } from './messaging.js'
import { PeerChannels, PeerPermissions } from './peers.js'

const TokenTypeName = Type.Union([Type.Literal('temp'), Type.Literal('agent'), Type.Literal('user'), Type.Literal('admin'), Type.Literal('peer')])
const RoleName = Type.Union([Type.Literal('agent'), Type.Literal('user'), Type.Literal('admin'), Type.Literal('peer')])
const Id = Type.String({ minLength: 1, maxLength: 300 })

/** Claims of every token that this registry issues (RFC 7519; times are epoch seconds). */
export const Claims = Type.Object({
  iss: Type.String({ description: '`agent-registry:<namespace>`' }),
  aud: Type.String({ description: '`arcp:validate` of a temporary token, `arcp:peer` of a peer\'s, else `arcp:operations`' }),
  sub: Id,
  jti: Id,
  typ: TokenTypeName,
  role: RoleName,
  iat: Type.Integer({ minimum: 0 }),
  exp: Type.Integer({ minimum: 0 }),
  iat_ms: Type.Optional(Type.Integer({ minimum: 0, description: 'Time of issue in milliseconds: what was issued just after a revocation is not hit by it' })),
  agent_id: Type.Optional(Id),
  scopes: Type.Optional(Type.Array(Type.String())),
  inc: Type.Optional(Type.Integer({ description: 'Incarnation of the agent' })),
  sid: Type.Optional(Type.String({ minLength: 1, description: 'Session that the token ends with' })),
  key: Type.Optional(Type.String({ minLength: 1, description: 'Digest of the agent key: of a temporary token the one it was given for, of an agent the one that owns it' })),
  agent_type: Type.Optional(Type.String()),
  grants: Type.Optional(Grants),
  metadata: Type.Optional(Type.Record(Type.String(), Type.Unknown(), { maxProperties: 100, description: 'What others learn of the bearer; in a peer token what only the bearer is told' })),
  channels: Type.Optional(PeerChannels),
  permissions: Type.Optional(PeerPermissions),
  peerMetadata: Type.Optional(PeerMetadata),
  temp_registration: Type.Optional(Type.Boolean()),
  token_type: Type.Optional(Type.String())
}, { $id: 'Claims' })
export type Claims = Static<typeof Claims>

/** What the host's `authenticate` hook may answer with. */
const HostPrincipal = Type.Object({
  type: TokenTypeName,
  role: RoleName,
  subject: Id,
  agentId: Nullable(Id),
  incarnation: Nullable(Type.Integer()),
  tokenId: Id,
  sessionId: Nullable(Type.String()),
  expiresAt: Nullable(Type.Number()),
  scopes: Type.Array(Type.String()),
  keyDigest: Nullable(Type.String()),
  agentType: Type.Optional(Nullable(Type.String())),
  issuedAt: Type.Optional(Nullable(Type.Number())),
  grants: Type.Optional(Nullable(Grants)),
  metadata: Type.Optional(Nullable(PeerMetadata))
})

const claims = TypeCompiler.Compile(Claims)
const hostPrincipal = TypeCompiler.Compile(HostPrincipal)

export const isClaims = (value: unknown) => claims.Check(value)
export const isHostPrincipal = (value: unknown) => hostPrincipal.Check(value)
