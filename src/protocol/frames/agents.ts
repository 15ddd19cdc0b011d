import { Type, type Static } from '@sinclair/typebox'
import { AgentInfo } from '../schemas/agent.js'
import { Nullable, Revision, WantedState } from '../schemas/common.js'
import { channelClientFrames, channelServerFrames } from './channels.js'
import { BearerToken, ClientFrame, commonClientFrames, commonServerFrames, EpochSeconds, RequestId, ServerFrame } from './common.js'
import { directClientFrames, directServerFrames } from './direct.js'

/** The first frame of whoever brought nothing with the upgrade: what is wrong in it is answered as existing clients know it. */
export const AuthenticateFrame = Type.Object({
  token: BearerToken,
  observe: Type.Optional(Type.Boolean({ description: 'This connection is no sign of life of its agent' })),
  requestId: Type.Optional(RequestId)
}, { description: 'Says who is there, when the upgrade did not', answers: ['auth_success', 'auth_error'] })

/** Replaces the token of a connection in place. */
export const AuthFrame = ClientFrame('auth', { token: BearerToken }, { description: 'Replaces the token of the connection by another one of the same subject', answers: ['auth_success'] })
export type AuthFrame = Static<typeof AuthFrame>
export const StatusFrame = ClientFrame('status', { status: WantedState }, { description: 'What the agent wants to be: draining and in maintenance it is not discovered' })
export type StatusFrame = Static<typeof StatusFrame>
export const GoodbyeFrame = ClientFrame('goodbye', {}, { description: 'Unregisters the agent and ends its connections' })

export const AuthRequired = ServerFrame('auth_required', { message: Type.String({ examples: ['Send your authentication token'] }) }, { description: 'The upgrade brought no token: the first frame has to' })
export const AuthError = ServerFrame('auth_error', { message: Type.String({ examples: ['Invalid token'] }) }, { description: 'The token was refused; the connection is closed with 1008' })
export const AuthSuccess = ServerFrame('auth_success', {
  message: Type.String({ examples: ['Authentication successful'] }),
  agent_id: Nullable(Type.String({ examples: ['agent-one'] })),
  role: Type.String({ examples: ['agent'] }),
  connectionId: Type.String({ examples: ['6f1f2a52-6c1e-4c7a-9d0a-2f0a4cf4b9a1'] }),
  serverTime: EpochSeconds,
  expiresAt: Nullable(Type.Number({ description: 'Epoch seconds at which the token ends', examples: [1795660097] })),
  heartbeatInterval: Type.Number({ description: 'Seconds between two signs of life, at most', examples: [20] }),
  leaseMs: Type.Integer({ description: 'Time without a sign of life after which the agent is dead', examples: [60000] }),
  limits: Type.Object({
    maxMessageSize: Type.Integer({ description: 'Bytes of the largest `data`', examples: [65536] }),
    messagesPerSecond: Type.Integer({ description: 'Frames for long', examples: [100] }),
    burst: Type.Integer({ description: 'Frames at once', examples: [200] }),
    channels: Type.Integer({ description: 'Subscriptions', examples: [100] })
  }),
  requestId: Type.Optional(RequestId)
}, { description: 'The connection is authenticated', unasked: true })
export const TokenExpiring = ServerFrame('token_expiring', { expiresAt: EpochSeconds }, { description: 'The token ends in 30 s: replace it with `auth`' })
export const AgentsTruncated = ServerFrame('agents_truncated', { total_count: Type.Integer({ examples: [240] }), sent: Type.Integer({ examples: [100] }), revision: Revision }, { description: 'The list before this one was cut' })
/** The one frame that is not an object. */
export const AgentList = Type.Array(AgentInfo, { description: 'All agents, after authentication and after changes, unless the connection watches' })

export const agentsClientFrames = { ...commonClientFrames, ...channelClientFrames, ...directClientFrames, auth: AuthFrame, status: StatusFrame, goodbye: GoodbyeFrame }
export const agentsServerFrames = [...commonServerFrames, ...channelServerFrames, ...directServerFrames, AuthRequired, AuthError, AuthSuccess, TokenExpiring, AgentsTruncated]
