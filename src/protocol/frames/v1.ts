import { Type, type Static } from '@sinclair/typebox'
import { Nullable } from '../schemas/common.js'
import { ChannelName, PeerId } from '../schemas/peers.js'
import { ClientFrame, EpochSeconds, ErrorFrame, GoingAway, PingFrame, PongReply, RequestId, ServerFrame } from './common.js'
import { Direct, InboxGap } from './direct.js'

const Data = Type.Unknown({ description: 'Any JSON value', examples: [{ text: 'hello' }] })
/** Optional here, because the handler refuses missing data with `missing_data`. */
const DataIn = Type.Optional(Data)

export const V1SubscribeFrame = ClientFrame('subscribe', {
  channel: ChannelName,
  includeSenderMetadata: Type.Optional(Type.Boolean({ description: 'Include the metadata of the sender in each message' }))
}, {
  description: 'Subscribes to a channel and, with the presence permission, to its presence. Subscribing again replaces the options and ' +
    'sends the presence again',
  examples: [{ type: 'subscribe', requestId: 'r1', channel: 'room-1', includeSenderMetadata: false }]
})
export type V1SubscribeFrame = Static<typeof V1SubscribeFrame>
export const V1UnsubscribeFrame = ClientFrame('unsubscribe', { channel: ChannelName }, {
  description: 'Ends a subscription. Acknowledged even if there is none'
})
export type V1UnsubscribeFrame = Static<typeof V1UnsubscribeFrame>
export const V1PublishFrame = ClientFrame('publish', { channel: ChannelName, data: DataIn }, {
  description: 'Publishes a message to all other subscribers of a channel'
})
export type V1PublishFrame = Static<typeof V1PublishFrame>
export const V1SendFrame = ClientFrame('send', { to: PeerId, data: DataIn }, {
  description: 'Sends a message to one peer in any tier',
  examples: [{ type: 'send', requestId: 'r1', to: 'agent-one', data: { text: 'hello' } }]
})
export type V1SendFrame = Static<typeof V1SendFrame>

const place = { epoch: Type.String({ examples: ['f3Zk1q2a0'] }), offset: Type.Integer({ examples: [17] }) }

export const Welcome = ServerFrame('welcome', {
  peerId: Type.String({ examples: ['alice'] }),
  expiresAt: Nullable(Type.Number(), { description: 'When the token expires, in epoch seconds; null for a key', examples: [1795660097] }),
  serverTime: EpochSeconds,
  maxMessageSize: Type.Integer({ description: 'Maximum size of `data`, in bytes', examples: [65536] }),
  metadata: Type.Optional(Type.Record(Type.String(), Type.Unknown(), {
    description: 'Metadata from the token that only this peer receives'
  }))
}, { description: 'The first frame: the identity of this peer and its limits' })
const V1Ack = ServerFrame('ack', {
  requestId: RequestId,
  channel: Type.Optional(ChannelName),
  epoch: Type.Optional(place.epoch),
  offset: Type.Optional(place.offset)
}, {
  description: 'The frame was processed. Sent only if it has a requestId. For `subscribe`, `publish` and `send`: with the position of ' +
    'the last message',
  examples: [{ type: 'ack', requestId: 'r1', channel: 'room-1', epoch: 'f3Zk1q2a0', offset: 17 }]
})
const V1Message = ServerFrame('message', {
  channel: ChannelName,
  from: Type.String({ examples: ['bob'] }),
  data: Data,
  fromMetadata: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  ...place,
  timestamp: EpochSeconds
}, { description: 'A message that another peer published to a channel' })
const V1Gap = ServerFrame('channel_gap', { channel: ChannelName, ...place, recovered: Type.Literal(false) }, {
  description: 'Messages up to this position are no longer available. The subscription continues after it'
})
const V1Presence = ServerFrame('presence', {
  channel: ChannelName,
  revision: Type.Integer({ description: 'Increases monotonically', examples: [42] }),
  snapshot: Type.Optional(Type.Literal(true, { description: '`joined` lists all peers that are present' })),
  truncated: Type.Optional(Type.Literal(true, { description: 'The list is incomplete; the next frames contain the rest' })),
  total_count: Type.Optional(Type.Integer({ description: 'Number of peers present, if the snapshot is truncated' })),
  joined: Type.Array(Type.Object({ peerId: Type.String(), metadata: Type.Optional(Type.Record(Type.String(), Type.Unknown())) })),
  left: Type.Array(Type.Object({ peerId: Type.String() }))
}, {
  description: 'The peers in a channel, or those that joined, changed or left',
  examples: [
    {
      type: 'presence',
      channel: 'room-1',
      revision: 42,
      snapshot: true,
      joined: [{ peerId: 'bob', metadata: { username: 'Bob', role: 'peer' } }],
      left: []
    }
  ]
})

export const v1ClientFrames = {
  subscribe: V1SubscribeFrame,
  unsubscribe: V1UnsubscribeFrame,
  publish: V1PublishFrame,
  send: V1SendFrame,
  ping: PingFrame
}
export const v1ServerFrames = [Welcome, V1Ack, ErrorFrame, V1Message, V1Gap, Direct, InboxGap, V1Presence, GoingAway, PongReply]
