import { Type, type Static, type TProperties } from '@sinclair/typebox'
import { AgentInfo } from '../agent.js'
import { AgentId, AgentType, Capability, Revision, State, Status } from '../common.js'

/** Epoch seconds, as a float. */
export const EpochSeconds = Type.Number({ description: 'Epoch seconds' })
export const RequestId = Type.String({ minLength: 1, maxLength: 128, description: 'Made by the sender; comes back in the one answer' })

/** A frame from a client: `type`, perhaps a `requestId`, and whatever else it likes to add. */
export const ClientFrame = <T extends string, P extends TProperties>(type: T, properties: P) =>
  Type.Object({ type: Type.Literal(type), requestId: Type.Optional(RequestId), ...properties })

export const ServerFrame = <T extends string, P extends TProperties>(type: T, properties: P) =>
  Type.Object({ type: Type.Literal(type), ...properties })

export const Filter = Type.Object({
  agent_type: Type.Optional(AgentType),
  capabilities: Type.Optional(Type.Array(Capability, { minItems: 1, maxItems: 20, description: 'All of them' })),
  status: Type.Optional(Status)
}, { additionalProperties: false })

export const PingFrame = ClientFrame('ping', {})
export const PongFrame = ClientFrame('pong', {})
export const WatchFrame = ClientFrame('watch', {
  since: Type.Optional(Type.String({ minLength: 1, maxLength: 64, description: 'The last revision that the client has seen' })),
  filter: Type.Optional(Filter),
  snapshot: Type.Optional(Type.Boolean())
})
export type WatchFrame = Static<typeof WatchFrame>
export const UnwatchFrame = ClientFrame('unwatch', {})

export const PongReply = ServerFrame('pong', { timestamp: EpochSeconds, requestId: Type.Optional(RequestId) })
export const Ack = ServerFrame('ack', { requestId: Type.Optional(RequestId), revision: Type.Optional(Revision) })
export const ErrorFrame = ServerFrame('error', {
  code: Type.String(),
  message: Type.String(),
  requestId: Type.Optional(RequestId),
  retryAfterMs: Type.Optional(Type.Integer()),
  reason: Type.Optional(Type.String({ description: 'Of `rejected`: the code that the other side gave' }))
})
export const GoingAway = ServerFrame('going_away', { retryAfterMs: Type.Integer() })

export const AgentChange = Type.Object({
  revision: Revision,
  op: Type.Union([Type.Literal('put'), Type.Literal('state'), Type.Literal('remove')]),
  agent_id: AgentId,
  agent: Type.Optional(AgentInfo),
  state: Type.Optional(State),
  previous: Type.Optional(State),
  reason: Type.String()
})
export const AgentsSnapshot = ServerFrame('agents_snapshot', { revision: Revision, agents: Type.Array(AgentInfo), last: Type.Boolean() })
export const AgentsDelta = ServerFrame('agents_delta', { changes: Type.Array(AgentChange) })
export const Bookmark = ServerFrame('bookmark', { revision: Revision, count: Type.Integer(), digest: Type.Optional(Type.String()) })
export const Resync = ServerFrame('resync', { revision: Revision })

/** What every tier receives, and what it may send. */
export const commonClientFrames = { ping: PingFrame, pong: PongFrame, watch: WatchFrame, unwatch: UnwatchFrame }
export const commonServerFrames = [PongReply, Ack, ErrorFrame, GoingAway, AgentsSnapshot, AgentsDelta, Bookmark, Resync]
