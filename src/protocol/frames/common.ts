import { Type, type Static, type TProperties } from '@sinclair/typebox'
import { AgentInfo } from '../schemas/agent.js'
import { AgentId, AgentType, Capability, Revision, State, Status } from '../schemas/common.js'

/** Epoch seconds, as a float. */
export const EpochSeconds = Type.Number({ description: 'Epoch seconds', examples: [1795444097.777] })
export const RequestId = Type.String({
  minLength: 1,
  maxLength: 128,
  description: 'Chosen by the client and returned in the one reply',
  examples: ['r1']
})
export const BearerToken = Type.String({ minLength: 1, description: 'A JSON Web Token', examples: ['eyJhbGciOiJIUzI1NiJ9.e30.c2ln'] })

/** Texts for the generated documents. Without `examples`, an example is composed of the examples of the members. */
export interface FrameOptions { description?: string, examples?: readonly unknown[] }
/** `answers` names the frames that may reply to this frame. `error` is always possible. */
export interface ClientFrameOptions extends FrameOptions { answers?: readonly string[] }
/** `unasked` marks a reply that the server also sends on its own. */
export interface ServerFrameOptions extends FrameOptions { unasked?: true }

/** A frame of a client: `type`, optional `requestId`, `properties`. Unknown members are ignored. */
export const ClientFrame = <T extends string, P extends TProperties>(type: T, properties: P, {
  answers = ['ack'],
  ...options
}: ClientFrameOptions = {
}) =>
    Type.Object({ type: Type.Literal(type), requestId: Type.Optional(RequestId), ...properties }, { ...options, answers })

export const ServerFrame = <T extends string, P extends TProperties>(type: T, properties: P, options: ServerFrameOptions = {}) =>
  Type.Object({ type: Type.Literal(type), ...properties }, options)

export const Filter = Type.Object({
  agent_type: Type.Optional(AgentType),
  capabilities: Type.Optional(Type.Array(Capability, { minItems: 1, maxItems: 20, description: 'The agent must have all of them' })),
  status: Type.Optional(Status)
}, { additionalProperties: false })

export const PingFrame = ClientFrame('ping', {}, { description: 'Checks that the server responds', answers: ['pong'] })
export const PongFrame = ClientFrame('pong', {}, { description: 'A heartbeat; the server does not reply', answers: [] })
export const WatchFrame = ClientFrame('watch', {
  since: Type.Optional(Type.String({ minLength: 1, maxLength: 64, description: 'The last revision that the client has seen' })),
  filter: Type.Optional(Filter),
  snapshot: Type.Optional(Type.Boolean({ description: 'Send all agents first' }))
}, {
  description: 'Starts the feed of changes, from `since` or from now on. Replaces an earlier watch of the connection',
  examples: [{ type: 'watch', requestId: 'r1', since: 'k3f9:42', filter: { agent_type: 'testing' } }]
})
export type WatchFrame = Static<typeof WatchFrame>
export const UnwatchFrame = ClientFrame('unwatch', {}, { description: 'Ends the feed. The server sends agent lists again' })

export const PongReply = ServerFrame('pong', { timestamp: EpochSeconds, requestId: Type.Optional(RequestId) }, {
  description: 'The reply to `ping`'
})
export const Ack = ServerFrame('ack', { requestId: Type.Optional(RequestId), revision: Type.Optional(Revision) }, {
  description: 'The frame was processed. For `watch`, `revision` is where the feed starts',
  examples: [{ type: 'ack', requestId: 'r1' }]
})
export const ErrorCode = Type.String({ description: 'Machine-readable code' })
export const ErrorFrame = ServerFrame('error', {
  code: ErrorCode,
  message: Type.String({ description: 'Human-readable text' }),
  requestId: Type.Optional(RequestId),
  retryAfterMs: Type.Optional(Type.Integer()),
  channel: Type.Optional(Type.String({ description: 'The channel of a subscription that this error ended' })),
  reason: Type.Optional(Type.String({ description: 'For `rejected`: the code that the responder gave' }))
}, {
  description: 'A frame was invalid or not permitted, or its processing failed. The connection stays open',
  unasked: true,
  examples: [{ type: 'error', code: 'unknown_type', message: 'Unknown message type: x', requestId: 'r1' }]
})
export const GoingAway = ServerFrame('going_away', { retryAfterMs: Type.Integer({ examples: [1200] }) }, {
  description: 'The server will close the connection with 1001. Reconnect after `retryAfterMs`'
})

export const AgentChange = Type.Object({
  revision: Revision,
  op: Type.Union([Type.Literal('put'), Type.Literal('state'), Type.Literal('remove')]),
  agent_id: AgentId,
  agent: Type.Optional(AgentInfo),
  state: Type.Optional(State),
  previous: Type.Optional(State),
  reason: Type.String()
})
export const AgentsSnapshot = ServerFrame('agents_snapshot', { revision: Revision, agents: Type.Array(AgentInfo), last: Type.Boolean() }, {
  description: 'A page of all agents at one revision. `last` marks the last page'
})
export const AgentsDelta = ServerFrame('agents_delta', { changes: Type.Array(AgentChange) }, {
  description: 'Changes in order, each revision exactly once',
  examples: [
    {
      type: 'agents_delta',
      changes: [{ revision: 'k3f9:43', op: 'state', agent_id: 'agent-one', state: 'suspect', previous: 'alive', reason: 'connection-lost' }]
    }
  ]
})
export const Bookmark = ServerFrame(
  'bookmark',
  {
    revision: Revision,
    count: Type.Integer(),
    digest: Type.Optional(Type.String({ description: 'Digest of all agents, if the watch includes all of them' }))
  },
  { description: 'All changes up to `revision` were sent. The client should now have `count` agents' }
)
export const Resync = ServerFrame('resync', { revision: Revision }, {
  description: 'The feed cannot continue from the state of the client. The client discards all agents; a snapshot follows'
})

/** Bare text messages, case-insensitive, with optional surrounding white space. */
export const PingText = Type.Literal('ping', { description: 'Bare text `ping`, sent by either side', answers: ['text-pong'] })
export const PongText = Type.Literal('pong', {
  description: 'Bare text `pong`, the reply to a text `ping`. Any other frame counts as a reply too',
  answers: []
})

/** Frames of all tiers. */
export const commonClientFrames = { ping: PingFrame, pong: PongFrame, watch: WatchFrame, unwatch: UnwatchFrame }
export const commonServerFrames = [PongReply, Ack, ErrorFrame, GoingAway, AgentsSnapshot, AgentsDelta, Bookmark, Resync]
