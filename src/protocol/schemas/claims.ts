import { Type, type Static } from '@sinclair/typebox'
import { Nullable } from './common.js'
import { Grants, PeerMetadata } from './messaging.js'
import { PeerChannels, PeerPermissions } from './peers.js'

const TokenTypeName = Type.Union([
  Type.Literal('temp'),
  Type.Literal('agent'),
  Type.Literal('user'),
  Type.Literal('admin'),
  Type.Literal('peer')
])
const RoleName = Type.Union([Type.Literal('agent'), Type.Literal('user'), Type.Literal('admin'), Type.Literal('peer')])
const Id = Type.String({ minLength: 1, maxLength: 300 })

/** Claims of every token that this registry issues (RFC 7519; times are epoch seconds). */
export const Claims = Type.Object({
  iss: Type.String({ description: '`agent-registry:<namespace>`' }),
  aud: Type.String({ description: '`arcp:validate` for a temporary token, `arcp:peer` for a peer token, otherwise `arcp:operations`' }),
  sub: Id,
  jti: Id,
  typ: TokenTypeName,
  role: RoleName,
  iat: Type.Integer({ minimum: 0 }),
  exp: Type.Integer({ minimum: 0 }),
  iat_ms: Type.Optional(Type.Integer({
    minimum: 0, description: 'Time of issue in milliseconds: a revocation does not apply to a token issued after it in the same second'
  })),
  agent_id: Type.Optional(Id),
  scopes: Type.Optional(Type.Array(Type.String())),
  inc: Type.Optional(Type.Integer({ description: 'Incarnation of the agent' })),
  sid: Type.Optional(Type.String({ minLength: 1, description: 'The session that the token ends with' })),
  key: Type.Optional(Type.String({
    minLength: 1, description: 'Digest of an agent key: the key that requested a temporary token, or the key that owns the agent'
  })),
  agent_type: Type.Optional(Type.String()),
  grants: Type.Optional(Grants),
  metadata: Type.Optional(Type.Record(Type.String(), Type.Unknown(), {
    maxProperties: 100,
    description: 'Metadata of the bearer that other peers see; in a peer token, metadata that only the bearer receives'
  })),
  channels: Type.Optional(PeerChannels),
  permissions: Type.Optional(PeerPermissions),
  peerMetadata: Type.Optional(PeerMetadata),
  temp_registration: Type.Optional(Type.Boolean()),
  token_type: Type.Optional(Type.String())
}, { $id: 'Claims' })
export type Claims = Static<typeof Claims>

/** The result that the hook `authenticate` may return. */
export const HostPrincipal = Type.Object({
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
