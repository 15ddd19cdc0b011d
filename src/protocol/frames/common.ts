import { Type, type Static, type TProperties } from '@sinclair/typebox'
import { AgentInfo } from '../schemas/agent.js'
import { AgentId, AgentType, Capability, Revision, State, Status } from '../schemas/common.js'

/** Epoch seconds, as a float. */
export const EpochSeconds = Type.Number({ description: 'Epoch seconds', examples: [1795444097.777] })
export const RequestId = Type.String({ minLength: 1, maxLength: 128, description: 'Made by the sender; comes back in the one answer', examples: ['r1'] })
export const BearerToken = Type.String({ minLength: 1, description: 'A JSON Web Token', examples: ['eyJhbGciOiJIUzI1NiJ9.e30.c2ln'] })

/** What documents say of a frame; without examples they make one of those of its members. */
export interface FrameOptions { description?: string, examples?: readonly unknown[] }
/** Frames of which one is the answer, by their names in documents; an `error` may always come instead. */
export interface ClientFrameOptions extends FrameOptions { answers?: readonly string[] }
/** Of a frame that is an answer: it also comes by itself. */
export interface ServerFrameOptions extends FrameOptions { unasked?: true }

/** A frame from a client: `type`, perhaps a `requestId`, and whatever else it likes to add. */
export const ClientFrame = <T extends string, P extends TProperties>(type: T, properties: P, { answers = ['ack'], ...options }: ClientFrameOptions = {}) =>
  Type.Object({ type: Type.Literal(type), requestId: Type.Optional(RequestId), ...properties }, { ...options, answers })

export const ServerFrame = <T extends string, P extends TProperties>(type: T, properties: P, options: ServerFrameOptions = {}) =>
  Type.Object({ type: Type.Literal(type), ...properties }, options)

export const Filter = Type.Object({
  agent_type: Type.Optional(AgentType),
  capabilities: Type.Optional(Type.Array(Capability, { minItems: 1, maxItems: 20, description: 'All of them' })),
  status: Type.Optional(Status)
}, { additionalProperties: false })

export const PingFrame = ClientFrame('ping', {}, { description: 'Asks whether the server is there', answers: ['pong'] })
export const PongFrame = ClientFrame('pong', {}, { description: 'A sign of life; not answered', answers: [] })
export const WatchFrame = ClientFrame('watch', {
  since: Type.Optional(Type.String({ minLength: 1, maxLength: 64, description: 'The last revision that the client has seen' })),
  filter: Type.Optional(Filter),
  snapshot: Type.Optional(Type.Boolean({ description: 'All agents first' }))
}, { description: 'Starts the feed of changes, after `since` or from now on; a second one takes the place of the first', examples: [{ type: 'watch', requestId: 'r1', since: 'k3f9:42', filter: { agent_type: 'testing' } }] })
export type WatchFrame = Static<typeof WatchFrame>
export const UnwatchFrame = ClientFrame('unwatch', {}, { description: 'Ends the feed; lists come again' })

export const PongReply = ServerFrame('pong', { timestamp: EpochSeconds, requestId: Type.Optional(RequestId) }, { description: 'The server is there' })
export const Ack = ServerFrame('ack', { requestId: Type.Optional(RequestId), revision: Type.Optional(Revision) }, { description: 'Done; to `watch` with the revision at which the feed starts', examples: [{ type: 'ack', requestId: 'r1' }] })
export const ErrorCode = Type.String({ description: 'For programs' })
export const ErrorFrame = ServerFrame('error', {
  code: ErrorCode,
  message: Type.String({ description: 'For people' }),
  requestId: Type.Optional(RequestId),
  retryAfterMs: Type.Optional(Type.Integer()),
  channel: Type.Optional(Type.String({ description: 'A subscription that has ended by that' })),
  reason: Type.Optional(Type.String({ description: 'Of `rejected`: the code that the other side gave' }))
}, { description: 'What came was not understood, not allowed or not done; the socket lives on', unasked: true, examples: [{ type: 'error', code: 'unknown_type', message: 'Unknown message type: x', requestId: 'r1' }] })
export const GoingAway = ServerFrame('going_away', { retryAfterMs: Type.Integer({ examples: [1200] }) }, { description: 'The server is about to close with 1001: come back after that time' })

export const AgentChange = Type.Object({
  revision: Revision,
  op: Type.Union([Type.Literal('put'), Type.Literal('state'), Type.Literal('remove')]),
  agent_id: AgentId,
  agent: Type.Optional(AgentInfo),
  state: Type.Optional(State),
  previous: Type.Optional(State),
  reason: Type.String()
})
export const AgentsSnapshot = ServerFrame('agents_snapshot', { revision: Revision, agents: Type.Array(AgentInfo), last: Type.Boolean() }, { description: 'A page of all agents at one moment; the last one says so' })
export const AgentsDelta = ServerFrame('agents_delta', { changes: Type.Array(AgentChange) }, {
  description: 'What has changed, in order, each revision once',
  examples: [{ type: 'agents_delta', changes: [{ revision: 'k3f9:43', op: 'state', agent_id: 'agent-one', state: 'suspect', previous: 'alive', reason: 'connection-lost' }] }]
})
export const Bookmark = ServerFrame('bookmark', { revision: Revision, count: Type.Integer(), digest: Type.Optional(Type.String({ description: 'Of all agents, where a watcher sees them all' })) }, { description: 'Everything up to `revision` has been sent; the client should know `count` agents' })
export const Resync = ServerFrame('resync', { revision: Revision }, { description: 'What the client knows cannot be continued: it forgets all agents, and a snapshot follows' })

/** Bare texts, in any case and with blanks around them. */
export const PingText = Type.Literal('ping', { description: 'Bare text: asks whether the client is there, or the server', answers: ['text-pong'] })
export const PongText = Type.Literal('pong', { description: 'Bare text: the answer to one; any frame will do as well', answers: [] })

/** What every tier receives, and what it may send. */
export const commonClientFrames = { ping: PingFrame, pong: PongFrame, watch: WatchFrame, unwatch: UnwatchFrame }
export const commonServerFrames = [PongReply, Ack, ErrorFrame, GoingAway, AgentsSnapshot, AgentsDelta, Bookmark, Resync]
