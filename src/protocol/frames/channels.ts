import { Type, type Static } from '@sinclair/typebox'
import { ChannelName, ChannelOrPattern, Epoch, MsgId, Offset, PeerMetadata, Since } from '../schemas/messaging.js'
import { ClientFrame, EpochSeconds, RequestId, ServerFrame } from './common.js'

const Data = Type.Unknown({ description: 'Any JSON value', examples: [{ text: 'hello' }] })
const Metadata = Type.Record(Type.String(), Type.Unknown(), {
  description: 'Metadata of the peer',
  examples: [{ role: 'agent', agent_id: 'agent-one' }]
})
const channel = 'workflows/run-1/subtasks'

export const SubscribeFrame = ClientFrame('subscribe', {
  channel: ChannelOrPattern,
  since: Type.Optional(Since),
  presence: Type.Optional(Type.Boolean({ description: 'Also send the presence of the channel, now and on every change' })),
  includeSenderMetadata: Type.Optional(Type.Boolean({ description: 'Include the metadata of the sender in each message' })),
  group: Type.Optional(Type.String({
    minLength: 1, maxLength: 128, description: 'Reserved for worker groups, which are not supported yet'
  }))
}, {
  description: 'Subscribes to a channel, from a position or from now on, or to all channels that match a pattern. `$agents` delivers ' +
    'the presence of all connected peers. Subscribing again replaces the options',
  examples: [{ type: 'subscribe', requestId: 'r1', channel, since: { epoch: 'f3Zk1q2a0', offset: 17 }, presence: true }]
})
export type SubscribeFrame = Static<typeof SubscribeFrame>
export const UnsubscribeFrame = ClientFrame('unsubscribe', { channel: ChannelOrPattern }, {
  description: 'Ends a subscription. Acknowledged even if there is none'
})
export type UnsubscribeFrame = Static<typeof UnsubscribeFrame>

export const PublishFrame = ClientFrame('publish', {
  channel: ChannelName,
  // Optional here, because the handler refuses missing data with `missing_data`.
  data: Type.Optional(Data),
  msgId: Type.Optional(MsgId),
  echo: Type.Optional(Type.Boolean({ description: 'Deliver the message to this connection too, if it is subscribed' }))
}, {
  description: 'Publishes a message to all subscribers of a channel',
  examples: [{ type: 'publish', requestId: 'r1', channel, data: { text: 'hello' } }]
})
export type PublishFrame = Static<typeof PublishFrame>

export const HistoryFrame = ClientFrame('history', {
  channel: ChannelName,
  since: Type.Optional(Since),
  limit: Type.Optional(Type.Integer({
    minimum: 1,
    maximum: 1000,
    default: 100,
    description: 'Maximum number of messages: the oldest ones after `since` or, without it, the newest ones'
  }))
}, {
  description: 'Requests the retained messages of a channel',
  answers: ['history'],
  examples: [{ type: 'history', requestId: 'r1', channel, limit: 100 }]
})
export type HistoryFrame = Static<typeof HistoryFrame>

export const PresenceFrame = ClientFrame('presence', { channel: ChannelOrPattern }, {
  description: 'Requests the current subscribers of a channel or, for `$agents`, all connected peers',
  answers: ['presence']
})
export type PresenceFrame = Static<typeof PresenceFrame>
export const PresenceUpdateFrame = ClientFrame('presence_update', { metadata: PeerMetadata }, {
  description: 'Sets the metadata that other peers see. Members set by the server take precedence. At most one update per second',
  examples: [{ type: 'presence_update', requestId: 'r1', metadata: { mood: 'busy' } }]
})
export type PresenceUpdateFrame = Static<typeof PresenceUpdateFrame>

const place = { epoch: Epoch, offset: Offset }
const message = {
  from: Type.String({ description: 'The authenticated publisher', examples: ['agent-one'] }),
  data: Data,
  fromMetadata: Type.Optional(Metadata),
  ...place,
  timestamp: EpochSeconds
}

const SubscribedAck = ServerFrame('ack', {
  requestId: Type.Optional(RequestId),
  channel: ChannelOrPattern,
  epoch: Type.Optional(Epoch),
  offset: Type.Optional(Offset),
  recovered: Type.Boolean({ description: 'False if some messages after `since` are no longer available' })
}, {
  description: 'The connection is subscribed. Missed messages up to this position follow, then new messages. A pattern and `$agents` ' +
    'have no position',
  examples: [{ type: 'ack', requestId: 'r1', channel, epoch: 'f3Zk1q2a0', offset: 19, recovered: true }]
})
const PublishedAck = ServerFrame('ack', {
  requestId: RequestId,
  channel: ChannelName,
  ...place,
  duplicate: Type.Optional(Type.Literal(true, { description: 'This message was already published; the position is that of the original' }))
}, {
  description: 'The message was published at this position. Sent only if the frame has a requestId',
  examples: [{ type: 'ack', requestId: 'r1', channel, epoch: 'f3Zk1q2a0', offset: 20 }]
})
const ChannelMessage = ServerFrame('message', { channel: ChannelName, ...message }, {
  description: 'A message that was published to a channel'
})
const ChannelGap = ServerFrame('channel_gap', { channel: ChannelName, ...place, recovered: Type.Literal(false) }, {
  description: 'Messages up to this position are no longer available. The subscription continues after it'
})
const HistoryReply = ServerFrame('history', {
  requestId: Type.Optional(RequestId),
  channel: ChannelName,
  ...place,
  recovered: Type.Boolean({ description: 'False if some messages after `since` are no longer available' }),
  truncated: Type.Optional(Type.Literal(true, { description: 'More messages are available: continue after the last one' })),
  messages: Type.Array(Type.Object(message))
}, { description: 'Retained messages, oldest first, and the current position of the channel' })

const member = {
  peerId: Type.String({ examples: ['agent-one'] }),
  agent_id: Type.Optional(Type.String({ description: 'Only in `$agents`, and only for an agent' }))
}
const PresenceReply = ServerFrame('presence', {
  requestId: Type.Optional(RequestId),
  channel: ChannelOrPattern,
  revision: Type.Integer({ description: 'Increases monotonically', examples: [42] }),
  snapshot: Type.Optional(Type.Literal(true, { description: '`joined` lists all peers that are present' })),
  truncated: Type.Optional(Type.Literal(true, { description: 'The list is incomplete. Subscribers receive the rest in the next frames' })),
  total_count: Type.Optional(Type.Integer({ description: 'Number of peers present, if the snapshot is truncated' })),
  joined: Type.Array(Type.Object({ ...member, status: Type.Optional(Type.Literal('online')), metadata: Type.Optional(Metadata) })),
  left: Type.Array(Type.Object({ ...member, status: Type.Optional(Type.Literal('offline')) }))
}, {
  description: 'The peers that are present, or those that joined, changed or left',
  unasked: true,
  examples: [
    {
      type: 'presence',
      channel,
      revision: 42,
      snapshot: true,
      joined: [{ peerId: 'agent-one', metadata: { role: 'agent', agent_id: 'agent-one' } }],
      left: []
    }
  ]
})

export const channelClientFrames = {
  subscribe: SubscribeFrame,
  unsubscribe: UnsubscribeFrame,
  publish: PublishFrame,
  history: HistoryFrame,
  presence: PresenceFrame,
  presence_update: PresenceUpdateFrame
}
export const channelServerFrames = [SubscribedAck, PublishedAck, ChannelMessage, ChannelGap, HistoryReply, PresenceReply]
