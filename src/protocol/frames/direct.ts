import { Type, type Static } from '@sinclair/typebox'
import { Capability, Nullable } from '../schemas/common.js'
import { ClientFrame, EpochSeconds, RequestId, ServerFrame } from './common.js'

/** A request waits for its reply no longer. */
export const maxTimeoutMs = 300_000

const PeerId = Type.String({ minLength: 1, maxLength: 256, description: 'An agent_id; of users and admins their name with `user-` before it', examples: ['agent-two'] })
const From = Type.String({ description: 'Who sent it, as authenticated', examples: ['agent-one'] })
const Data = (description = 'Whatever JSON can say') => Type.Unknown({ description, examples: [{ text: 'hello' }] })
/** The handler says `missing_data` for none. */
const DataIn = Type.Optional(Data())
const Rid = Type.String({ minLength: 1, maxLength: 200, description: 'Names a request to the one who is asked; made by the server', examples: ['c7mGfXZ0dFhK.6f1f2a52-6c1e-4c7a-9d0a-2f0a4cf4b9a1'] })
const Epoch = Type.String({ maxLength: 200, description: 'Opaque; another one means that offsets begin anew', examples: ['f3Zk1q2a0'] })
const Offset = Type.Integer({ minimum: 0, examples: [17] })

/** Where a reader is in an inbox. */
const Since = Type.Object({ epoch: Epoch, offset: Offset }, { description: 'The last position that is known' })

export const SendFrame = ClientFrame('send', {
  to: PeerId,
  data: DataIn,
  msgId: Type.Optional(Type.String({ minLength: 1, maxLength: 128, description: 'The same to the same receiver within five minutes is stored once' })),
  level: Type.Optional(Type.Union([Type.Literal('accepted'), Type.Literal('delivered')], { description: '`delivered` waits, five seconds at most, until a connection of the receiver was given the message' }))
}, { description: 'Says something to one peer; one that is registered and away finds it in its inbox', examples: [{ type: 'send', requestId: 'r1', to: 'agent-two', data: { text: 'hello' } }] })
export type SendFrame = Static<typeof SendFrame>

export const InboxFrame = ClientFrame('inbox', { since: Type.Optional(Since) }, {
  description: 'Asks for the messages that came after a position, or all that are kept; they follow the answer',
  examples: [{ type: 'inbox', requestId: 'r1', since: { epoch: 'f3Zk1q2a0', offset: 17 } }]
})
export type InboxFrame = Static<typeof InboxFrame>

export const MessageFrame = ClientFrame('message', { to: Type.Optional(Nullable(PeerId)), content: DataIn }, {
  description: 'The same as `send` in the small dialect; without `to` it goes to all who are there, for which the token needs the grant `broadcast`',
  examples: [{ type: 'message', to: 'agent-two', content: 'hello' }]
})
export type MessageFrame = Static<typeof MessageFrame>

export const RequestFrame = Type.Object({
  ...ClientFrame('request', {
    to: Type.Optional(PeerId),
    capability: Type.Optional(Capability),
    data: DataIn,
    timeoutMs: Type.Integer({ minimum: 1, maximum: maxTimeoutMs, description: 'Time for the reply', examples: [30_000] }),
    idempotent: Type.Optional(Type.Boolean({ description: 'Another agent may be asked when the first does not accept within a second: true unless said otherwise' }))
  }).properties,
  requestId: RequestId
}, {
  description: 'Asks one peer, or the least loaded agent that has a capability',
  answers: ['response', 'ack'],
  examples: [{ type: 'request', requestId: 'r1', capability: 'summarise', data: { text: 'hello' }, timeoutMs: 30_000 }]
})
export type RequestFrame = Static<typeof RequestFrame>

export const AcceptFrame = ClientFrame('accept', { rid: Rid }, { description: 'Takes a request, within a second' })
export type AcceptFrame = Static<typeof AcceptFrame>
export const ReplyFrame = ClientFrame('reply', { rid: Rid, data: DataIn }, { description: 'Answers a request, whether or not it was accepted before' })
export type ReplyFrame = Static<typeof ReplyFrame>
export const RejectFrame = ClientFrame('reject', {
  rid: Rid,
  code: Type.String({ minLength: 1, maxLength: 100, description: 'For the program that asked', examples: ['busy'] }),
  message: Type.String({ maxLength: 1000, description: 'For people', examples: ['Too much to do'] })
}, { description: 'Refuses a request: whoever asked gets `rejected`' })
export type RejectFrame = Static<typeof RejectFrame>
export const CancelRequestFrame = Type.Object({ type: Type.Literal('cancel_request'), requestId: RequestId }, {
  description: 'Ends the request that has this requestId, of which the `ack` is the answer then',
  answers: ['ack']
})
export type CancelRequestFrame = Static<typeof CancelRequestFrame>

const place = { epoch: Epoch, offset: Offset }

export const SentAck = ServerFrame('ack', {
  requestId: RequestId,
  offset: Offset,
  delivered: Type.Boolean({ description: 'Whether the receiver is connected; with the level `delivered`, whether it was given the message' }),
  duplicate: Type.Optional(Type.Literal(true, { description: 'It had been sent before: the offset is that of the first' }))
}, { description: 'The message is in the inbox of its receiver' })
export const InboxAck = ServerFrame('ack', {
  requestId: Type.Optional(RequestId),
  ...place,
  recovered: Type.Boolean({ description: 'False when some of what was missed is not kept any more' })
}, { description: 'Where the inbox stands; what was missed follows' })
export const InboxGap = ServerFrame('inbox_gap', { ...place, recovered: Type.Literal(false) }, { description: 'Messages up to this position cannot be had any more' })
export const Direct = ServerFrame('direct', {
  from: From,
  data: Data(),
  fromMetadata: Type.Optional(Type.Record(Type.String(), Type.Unknown(), { description: 'What is known of the sender' })),
  ...place,
  timestamp: EpochSeconds
}, { description: 'What a peer says to this one' })
export const SmallMessage = ServerFrame('message', {
  from: From,
  to: Nullable(Type.String({ examples: ['agent-two'] }), { description: 'Null for all' }),
  content: Data('As it was sent'),
  timestamp: EpochSeconds
}, { description: 'What a peer says in the small dialect' })
export const RequestGiven = ServerFrame('request', {
  rid: Rid,
  from: From,
  data: Data(),
  deadline: Type.Integer({ description: 'Epoch milliseconds; nobody waits after that', examples: [1795444127777] })
}, { description: 'This agent is asked: it accepts within a second, then it replies or rejects' })
export const RequestCancelled = ServerFrame('request_cancelled', { rid: Rid }, { description: 'Nobody waits for the reply of this agent any more' })
export const Response = ServerFrame('response', { requestId: RequestId, from: From, data: Data() }, { description: 'The reply to a request' })

export const directClientFrames = {
  send: SendFrame,
  inbox: InboxFrame,
  message: MessageFrame,
  request: RequestFrame,
  accept: AcceptFrame,
  reply: ReplyFrame,
  reject: RejectFrame,
  cancel_request: CancelRequestFrame
}
export const directServerFrames = [SentAck, InboxAck, InboxGap, Direct, SmallMessage, RequestGiven, RequestCancelled, Response]
