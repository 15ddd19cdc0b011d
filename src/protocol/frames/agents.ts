import { Type, type Static } from '@sinclair/typebox'
import { AgentInfo } from '../schemas/agent.js'
import { Nullable, Revision, WantedState } from '../schemas/common.js'
import { channelClientFrames, channelServerFrames } from './channels.js'
import { BearerToken, ClientFrame, commonClientFrames, commonServerFrames, EpochSeconds, RequestId, ServerFrame } from './common.js'
import { directClientFrames, directServerFrames } from './direct.js'

/** The first frame of a client that sent no credentials with the upgrade. ARCP defines its form and its errors. */
export const AuthenticateFrame = Type.Object({
  token: BearerToken,
  observe: Type.Optional(Type.Boolean({ description: 'This connection does not renew the lease of its agent' })),
  requestId: Type.Optional(RequestId)
}, { description: 'Authenticates a connection whose upgrade request carried no token', answers: ['auth_success', 'auth_error'] })

/** Replaces the token of an open connection. */
export const AuthFrame = ClientFrame('auth', { token: BearerToken }, {
  description: 'Replaces the token of the connection with another token of the same subject',
  answers: ['auth_success']
})
export type AuthFrame = Static<typeof AuthFrame>
export const StatusFrame = ClientFrame('status', { status: WantedState }, {
  description: 'Sets the state of the agent. Discovery does not return agents that are draining or in maintenance'
})
export type StatusFrame = Static<typeof StatusFrame>
export const GoodbyeFrame = ClientFrame('goodbye', {}, { description: 'Unregisters the agent and closes its connections' })

export const AuthRequired = ServerFrame('auth_required', { message: Type.String({ examples: ['Send your authentication token'] }) }, {
  description: 'The upgrade request carried no token: the client must authenticate with its first frame'
})
export const AuthError = ServerFrame('auth_error', { message: Type.String({ examples: ['Invalid token'] }) }, {
  description: 'The token was rejected. The server closes the connection with 1008'
})
export const AuthSuccess = ServerFrame('auth_success', {
  message: Type.String({ examples: ['Authentication successful'] }),
  agent_id: Nullable(Type.String({ examples: ['agent-one'] })),
  role: Type.String({ examples: ['agent'] }),
  connectionId: Type.String({ examples: ['6f1f2a52-6c1e-4c7a-9d0a-2f0a4cf4b9a1'] }),
  serverTime: EpochSeconds,
  expiresAt: Nullable(Type.Number({ description: 'When the token expires, in epoch seconds', examples: [1795660097] })),
  heartbeatInterval: Type.Number({ description: 'Maximum time between two heartbeats, in seconds', examples: [20] }),
  leaseMs: Type.Integer({ description: 'Time without a heartbeat after which the agent is dead, in milliseconds', examples: [60000] }),
  limits: Type.Object({
    maxMessageSize: Type.Integer({ description: 'Maximum size of `data`, in bytes', examples: [65536] }),
    messagesPerSecond: Type.Integer({ description: 'Sustained rate of frames', examples: [100] }),
    burst: Type.Integer({ description: 'Maximum burst of frames', examples: [200] }),
    channels: Type.Integer({ description: 'Maximum number of subscriptions', examples: [100] })
  }),
  requestId: Type.Optional(RequestId)
}, { description: 'The connection is authenticated', unasked: true })
export const TokenExpiring = ServerFrame('token_expiring', { expiresAt: EpochSeconds }, {
  description: 'The token expires in 30 s. Replace it with `auth`'
})
export const AgentsTruncated = ServerFrame(
  'agents_truncated',
  { total_count: Type.Integer({ examples: [240] }), sent: Type.Integer({ examples: [100] }), revision: Revision },
  { description: 'The preceding agent list was truncated' }
)
/** The only message that is an array. */
export const AgentList = Type.Array(AgentInfo, {
  description: 'All agents. Sent after authentication and after changes, unless the connection has a `watch`'
})

export const agentsClientFrames = {
  ...commonClientFrames,
  ...channelClientFrames,
  ...directClientFrames,
  auth: AuthFrame,
  status: StatusFrame,
  goodbye: GoodbyeFrame
}
export const agentsServerFrames = [
  ...commonServerFrames, ...channelServerFrames, ...directServerFrames, AuthRequired, AuthError, AuthSuccess, TokenExpiring,
  AgentsTruncated
]
