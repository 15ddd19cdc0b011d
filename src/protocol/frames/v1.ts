import { Type, type Static } from '@sinclair/typebox'
import { Nullable } from '../schemas/common.js'
import { ChannelName, PeerId } from '../schemas/peers.js'
import { ClientFrame, EpochSeconds, ErrorFrame, GoingAway, PingFrame, PongReply, RequestId, ServerFrame } from './common.js'
import { Direct, InboxGap } from './direct.js'

const Data = Type.Unknown({ description: 'Whatever JSON can say', examples: [{ text: 'hello' }] })
/** The handler says `missing_data` for none. */
const DataIn = Type.Optional(Data)

export const V1SubscribeFrame = ClientFrame('subscribe', {
  channel: ChannelName,
  includeSenderMetadata: Type.Optional(Type.Boolean({ description: 'What is known of the sender stands in each message' }))
}, {
  description: 'Asks for the messages of a channel and, with the right to see it, who is there. Again: the last options win, and who is there comes again',
  examples: [{ type: 'subscribe', requestId: 'r1', channel: 'room-1', includeSenderMetadata: false }]
})
export type V1SubscribeFrame = Static<typeof V1SubscribeFrame>
export const V1UnsubscribeFrame = ClientFrame('unsubscribe', { channel: ChannelName }, { description: 'Ends a subscription; done also where there is none' })
export type V1UnsubscribeFrame = Static<typeof V1UnsubscribeFrame>
export const V1PublishFrame = ClientFrame('publish', { channel: ChannelName, data: DataIn }, { description: 'Says something to all others who are subscribed to a channel' })
export type V1PublishFrame = Static<typeof V1PublishFrame>
export const V1SendFrame = ClientFrame('send', { to: PeerId, data: DataIn }, { description: 'Says something to one peer, in whatever tier', examples: [{ type: 'send', requestId: 'r1', to: 'agent-one', data: { text: 'hello' } }] })
export type V1SendFrame = Static<typeof V1SendFrame>

const place = { epoch: Type.String({ examples: ['f3Zk1q2a0'] }), offset: Type.Integer({ examples: [17] }) }

export const Welcome = ServerFrame('welcome', {
  peerId: Type.String({ examples: ['alice'] }),
  expiresAt: Nullable(Type.Number(), { description: 'Epoch seconds at which the token ends; a key does not', examples: [1795660097] }),
  serverTime: EpochSeconds,
  maxMessageSize: Type.Integer({ description: 'Bytes of the largest `data`', examples: [65536] }),
  metadata: Type.Optional(Type.Record(Type.String(), Type.Unknown(), { description: 'What the token has for this peer alone' }))
}, { description: 'The first frame: who this is' })
export const V1Ack = ServerFrame('ack', {
  requestId: RequestId,
  channel: Type.Optional(ChannelName),
  epoch: Type.Optional(place.epoch),
  offset: Type.Optional(place.offset)
}, { description: 'Done; only for a frame with a requestId. To `subscribe`, `publish` and `send` with the position of the last message', examples: [{ type: 'ack', requestId: 'r1', channel: 'room-1', epoch: 'f3Zk1q2a0', offset: 17 }] })
export const V1Message = ServerFrame('message', {
  channel: ChannelName,
  from: Type.String({ examples: ['bob'] }),
  data: Data,
  fromMetadata: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  ...place,
  timestamp: EpochSeconds
}, { description: 'What somebody else has published in a channel' })
export const V1Gap = ServerFrame('channel_gap', { channel: ChannelName, ...place, recovered: Type.Literal(false) }, { description: 'Messages up to this position cannot be had any more; the channel goes on after it' })
export const V1Presence = ServerFrame('presence', {
  channel: ChannelName,
  revision: Type.Integer({ description: 'Grows', examples: [42] }),
  snapshot: Type.Optional(Type.Literal(true, { description: 'These are all who are there' })),
  truncated: Type.Optional(Type.Literal(true, { description: 'Not all had room; they come in the next frames' })),
  total_count: Type.Optional(Type.Integer({ description: 'Of a snapshot without some' })),
  joined: Type.Array(Type.Object({ peerId: Type.String(), metadata: Type.Optional(Type.Record(Type.String(), Type.Unknown())) })),
  left: Type.Array(Type.Object({ peerId: Type.String() }))
}, { description: 'Who is in a channel, and who has come, changed or gone since', examples: [{ type: 'presence', channel: 'room-1', revision: 42, snapshot: true, joined: [{ peerId: 'bob', metadata: { username: 'Bob', role: 'peer' } }], left: [] }] })

export const v1ClientFrames = { subscribe: V1SubscribeFrame, unsubscribe: V1UnsubscribeFrame, publish: V1PublishFrame, send: V1SendFrame, ping: PingFrame }
export const v1ServerFrames = [Welcome, V1Ack, ErrorFrame, V1Message, V1Gap, Direct, InboxGap, V1Presence, GoingAway, PongReply]
