import { Type, type Static } from '@sinclair/typebox'
import { AgentInfo } from '../agent.js'
import { Nullable, Revision, WantedState } from '../common.js'
import { ClientFrame, commonClientFrames, commonServerFrames, EpochSeconds, RequestId, ServerFrame } from './common.js'

/** Replaces the token of a connection in place. */
export const AuthFrame = ClientFrame('auth', { token: Type.String({ minLength: 1 }) })
export type AuthFrame = Static<typeof AuthFrame>
export const StatusFrame = ClientFrame('status', { status: WantedState })
export type StatusFrame = Static<typeof StatusFrame>
export const GoodbyeFrame = ClientFrame('goodbye', {})

export const AuthRequired = ServerFrame('auth_required', { message: Type.String() })
export const AuthError = ServerFrame('auth_error', { message: Type.String() })
export const AuthSuccess = ServerFrame('auth_success', {
  message: Type.String(),
  agent_id: Nullable(Type.String()),
  role: Type.String(),
  connectionId: Type.String(),
  serverTime: EpochSeconds,
  expiresAt: Nullable(Type.Number({ description: 'Epoch seconds at which the token ends' })),
  heartbeatInterval: Type.Number({ description: 'Seconds between two signs of life, at most' }),
  leaseMs: Type.Integer(),
  limits: Type.Object({
    maxMessageSize: Type.Integer(),
    messagesPerSecond: Type.Integer(),
    burst: Type.Integer(),
    channels: Type.Integer()
  }),
  requestId: Type.Optional(RequestId)
})
export const TokenExpiring = ServerFrame('token_expiring', { expiresAt: EpochSeconds })
export const AgentsTruncated = ServerFrame('agents_truncated', { total_count: Type.Integer(), sent: Type.Integer(), revision: Revision })
/** The one frame that is not an object. */
export const AgentList = Type.Array(AgentInfo)

export const agentsClientFrames = { ...commonClientFrames, auth: AuthFrame, status: StatusFrame, goodbye: GoodbyeFrame }
export const agentsServerFrames = [...commonServerFrames, AuthRequired, AuthError, AuthSuccess, TokenExpiring, AgentsTruncated]
