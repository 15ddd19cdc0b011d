import { Type, type Static } from '@sinclair/typebox'
import { ChannelName, ChannelOrPattern, Epoch, MsgId, Offset, PeerMetadata, Since } from '../schemas/messaging.js'
import { ClientFrame, EpochSeconds, RequestId, ServerFrame } from './common.js'

const Data = Type.Unknown({ description: 'Whatever JSON can say', examples: [{ text: 'hello' }] })
const Metadata = Type.Record(Type.String(), Type.Unknown(), { description: 'What is known of the peer', examples: [{ role: 'agent', agent_id: 'agent-one' }] })
const channel = 'workflows/run-1/subtasks'

export const SubscribeFrame = ClientFrame('subscribe', {
  channel: ChannelOrPattern,
  since: Type.Optional(Since),
  presence: Type.Optional(Type.Boolean({ description: 'Who is subscribed to the channel, and how that changes' })),
  includeSenderMetadata: Type.Optional(Type.Boolean({ description: 'What is known of the sender stands in each message' })),
  group: Type.Optional(Type.String({ minLength: 1, maxLength: 128, description: 'Worker groups are not offered yet' }))
}, {
  description: 'Asks for the messages of a channel, after a position or from now on, or of all channels that a pattern matches; of `$agents`, for who takes part. Again: the last options win',
  examples: [{ type: 'subscribe', requestId: 'r1', channel, since: { epoch: 'f3Zk1q2a0', offset: 17 }, presence: true }]
})
export type SubscribeFrame = Static<typeof SubscribeFrame>
export const UnsubscribeFrame = ClientFrame('unsubscribe', { channel: ChannelOrPattern }, { description: 'Ends a subscription; done also where there is none' })
export type UnsubscribeFrame = Static<typeof UnsubscribeFrame>

export const PublishFrame = ClientFrame('publish', {
  channel: ChannelName,
  // The handler says `missing_data` for none.
  data: Type.Optional(Data),
  msgId: Type.Optional(MsgId),
  echo: Type.Optional(Type.Boolean({ description: 'This connection is sent it too, if it is subscribed' }))
}, { description: 'Says something to all who are subscribed to a channel', examples: [{ type: 'publish', requestId: 'r1', channel, data: { text: 'hello' } }] })
export type PublishFrame = Static<typeof PublishFrame>

export const HistoryFrame = ClientFrame('history', {
  channel: ChannelName,
  since: Type.Optional(Since),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, default: 100, description: 'Messages, the oldest of those after `since`, without it the newest' }))
}, { description: 'Asks for what was published in a channel, as far as it is kept', answers: ['history'], examples: [{ type: 'history', requestId: 'r1', channel, limit: 100 }] })
export type HistoryFrame = Static<typeof HistoryFrame>

export const PresenceFrame = ClientFrame('presence', { channel: ChannelOrPattern }, { description: 'Asks who is subscribed to a channel now or, of `$agents`, who takes part', answers: ['presence'] })
export type PresenceFrame = Static<typeof PresenceFrame>
export const PresenceUpdateFrame = ClientFrame('presence_update', { metadata: PeerMetadata }, {
  description: 'What the peer says of itself to others from now on; what the server knows of it wins. Once a second',
  examples: [{ type: 'presence_update', requestId: 'r1', metadata: { mood: 'busy' } }]
})
export type PresenceUpdateFrame = Static<typeof PresenceUpdateFrame>

const place = { epoch: Epoch, offset: Offset }
const message = {
  from: Type.String({ description: 'Who published it, as authenticated', examples: ['agent-one'] }),
  data: Data,
  fromMetadata: Type.Optional(Metadata),
  ...place,
  timestamp: EpochSeconds
}

export const SubscribedAck = ServerFrame('ack', {
  requestId: Type.Optional(RequestId),
  channel: ChannelOrPattern,
  epoch: Type.Optional(Epoch),
  offset: Type.Optional(Offset),
  recovered: Type.Boolean({ description: 'False when some of what came after `since` cannot be had any more' })
}, { description: 'The connection is subscribed: what was missed comes up to this position, and then what is published. A pattern and `$agents` have no position', examples: [{ type: 'ack', requestId: 'r1', channel, epoch: 'f3Zk1q2a0', offset: 19, recovered: true }] })
export const PublishedAck = ServerFrame('ack', {
  requestId: RequestId,
  channel: ChannelName,
  ...place,
  duplicate: Type.Optional(Type.Literal(true, { description: 'It had been published before: the position is that of the first' }))
}, { description: 'The message has its place in the channel; only for a frame with a requestId', examples: [{ type: 'ack', requestId: 'r1', channel, epoch: 'f3Zk1q2a0', offset: 20 }] })
export const ChannelMessage = ServerFrame('message', { channel: ChannelName, ...message }, { description: 'What was published in a channel' })
export const ChannelGap = ServerFrame('channel_gap', { channel: ChannelName, ...place, recovered: Type.Literal(false) }, { description: 'Messages up to this position cannot be had any more; the channel goes on after it' })
export const HistoryReply = ServerFrame('history', {
  requestId: Type.Optional(RequestId),
  channel: ChannelName,
  ...place,
  recovered: Type.Boolean({ description: 'False when some of what came after `since` cannot be had any more' }),
  truncated: Type.Optional(Type.Literal(true, { description: 'Not all of it had room: go on after the last message' })),
  messages: Type.Array(Type.Object(message))
}, { description: 'What was published, the oldest first, and where the channel stands' })

const member = { peerId: Type.String({ examples: ['agent-one'] }), agent_id: Type.Optional(Type.String({ description: 'In `$agents`, of an agent' })) }
export const PresenceReply = ServerFrame('presence', {
  requestId: Type.Optional(RequestId),
  channel: ChannelOrPattern,
  revision: Type.Integer({ description: 'Grows', examples: [42] }),
  snapshot: Type.Optional(Type.Literal(true, { description: 'These are all who are there' })),
  truncated: Type.Optional(Type.Literal(true, { description: 'Not all had room; to who is subscribed they come in the next frames' })),
  total_count: Type.Optional(Type.Integer({ description: 'Of a snapshot without some' })),
  joined: Type.Array(Type.Object({ ...member, status: Type.Optional(Type.Literal('online')), metadata: Type.Optional(Metadata) })),
  left: Type.Array(Type.Object({ ...member, status: Type.Optional(Type.Literal('offline')) }))
}, { description: 'Who is there, and who has come, changed or gone since', unasked: true, examples: [{ type: 'presence', channel, revision: 42, snapshot: true, joined: [{ peerId: 'agent-one', metadata: { role: 'agent', agent_id: 'agent-one' } }], left: [] }] })

export const channelClientFrames = {
  subscribe: SubscribeFrame,
  unsubscribe: UnsubscribeFrame,
  publish: PublishFrame,
  history: HistoryFrame,
  presence: PresenceFrame,
  presence_update: PresenceUpdateFrame
}
export const channelServerFrames = [SubscribedAck, PublishedAck, ChannelMessage, ChannelGap, HistoryReply, PresenceReply]
