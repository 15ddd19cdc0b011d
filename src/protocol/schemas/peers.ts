import { Type, type Static, type TSchema } from '@sinclair/typebox'
import { verbatim } from '../../lib/coerce.js'
import { Capability } from './common.js'
import { Epoch, MsgId, Offset, PeerMetadata } from './messaging.js'

const noControls = '^[^\\u0000-\\u001f\\u007f-\\u009f]+$'

/** The name of a peer on `/v1`, in UTF-16 units. */
export const PeerId = Type.String({
  minLength: 1,
  maxLength: 128,
  pattern: noControls,
  description: 'Without control characters',
  examples: ['alice'],
  ...verbatim
})
/** The name of a channel on `/v1`, in UTF-16 units. */
export const ChannelName = Type.String({
  minLength: 1,
  maxLength: 256,
  pattern: noControls,
  description: 'Any text without control characters',
  examples: ['room-1'],
  ...verbatim
})

const PeerPermission = Type.Union([
  Type.Literal('publish'),
  Type.Literal('subscribe'),
  Type.Literal('presence'),
  Type.Literal('send')
])
export const PeerPermissions = Type.Array(PeerPermission, { maxItems: 16 })
export const PeerChannels = Type.Array(Type.String({ minLength: 1, maxLength: 256, ...verbatim }), {
  maxItems: 100,
  description: 'Channel names. A trailing `*` matches characters up to the next `/`, a trailing `**` also matches across `/`'
})
const WelcomeMetadata = Type.Record(Type.String({ maxLength: 100 }), Type.Unknown(), {
  maxProperties: 100,
  description: 'Metadata that only the peer itself receives: at most 8 KiB of JSON'
})

/** The body of an error response below `/v1`. */
export const V1Error = Type.Object({
  error: Type.String({ description: 'Machine-readable code' }),
  message: Type.String({ description: 'Human-readable text' }),
  reason: Type.Optional(Type.String({ description: 'For `request_rejected`: the code that the responder gave' }))
})
export const v1Answers = <T extends TSchema>(success: T) => ({ 200: success, '4xx': V1Error, '5xx': V1Error })

export const IdempotencyHeaders = Type.Object({
  'idempotency-key': Type.Optional(Type.String({ description: 'A request with the same key runs only once within an hour' }))
})

export const PeerTokenBody = Type.Object({
  peerId: PeerId,
  channels: PeerChannels,
  permissions: Type.Array(PeerPermission, { maxItems: 16, default: ['publish', 'subscribe', 'presence', 'send'] }),
  expiresInSec: Type.Integer({ minimum: 1, maximum: 86_400, default: 3600 }),
  metadata: Type.Optional(WelcomeMetadata),
  peerMetadata: Type.Optional(PeerMetadata)
}, {
  examples: [
    {
      peerId: 'alice',
      channels: ['room-1'],
      permissions: ['publish', 'subscribe', 'presence', 'send'],
      expiresInSec: 3600,
      peerMetadata: { username: 'Alice' }
    }
  ]
})
export type PeerTokenBody = Static<typeof PeerTokenBody>
export const PeerTokenAnswer = Type.Object({
  token: Type.String({ description: 'A JSON Web Token for `/v1`' }),
  expiresAt: Type.Integer({ description: 'Epoch seconds' })
})

export const ChannelParams = Type.Object({ channel: ChannelName })
export const PeerParams = Type.Object({ peerId: PeerId })

const From = Type.Optional(Type.String({ ...PeerId, description: 'The sender to act as, for back ends and admins; default: the caller' }))
const Data = Type.Unknown({ description: 'Any JSON value' })

export const V1PublishBody = Type.Object({ data: Data, from: From, msgId: Type.Optional(MsgId) })
export const V1Published = Type.Object({
  channel: ChannelName,
  epoch: Epoch,
  offset: Offset,
  subscribers: Type.Integer({ description: 'Number of peers that were subscribed to the channel by name just before' }),
  duplicate: Type.Optional(Type.Literal(true, { description: 'The message was published before' }))
})

export const V1Peers = Type.Object({
  channel: ChannelName,
  peers: Type.Array(Type.Object({ peerId: Type.String(), metadata: Type.Record(Type.String(), Type.Unknown()) }))
})

export const V1HistoryQuery = Type.Object({
  limit: Type.Integer({
    minimum: 1,
    maximum: 1000,
    default: 100,
    description: 'Maximum number of messages: the oldest ones after the position or, without one, the newest ones'
  }),
  epoch: Type.Optional(Epoch),
  offset: Type.Optional(Offset)
})
export const V1History = Type.Object({
  channel: ChannelName,
  epoch: Epoch,
  offset: Offset,
  recovered: Type.Boolean({ description: 'False if some messages after the position are no longer available' }),
  truncated: Type.Optional(Type.Literal(true, { description: 'More messages are available' })),
  messages: Type.Array(Type.Object({
    from: Type.String(),
    data: Data,
    fromMetadata: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
    epoch: Epoch,
    offset: Offset,
    timestamp: Type.Number({ description: 'Epoch seconds' })
  }))
})

export const V1SendBody = Type.Object({
  data: Data,
  from: From,
  msgId: Type.Optional(MsgId),
  level: Type.Optional(Type.Union([Type.Literal('accepted'), Type.Literal('delivered')]))
})
export const V1Sent = Type.Object({ offset: Offset, delivered: Type.Boolean(), duplicate: Type.Optional(Type.Literal(true)) })

const timeoutMs = Type.Integer({ minimum: 1, maximum: 300_000, default: 30_000, description: 'Timeout for the reply, in milliseconds' })
const idempotent = Type.Optional(Type.Boolean({
  description: 'Whether another agent may receive the request if the first one does not accept it within a second; default true'
}))
export const V1RequestBody = Type.Object({ data: Data, from: From, timeoutMs, idempotent })
export const V1CapabilityBody = Type.Object({ capability: Capability, data: Data, from: From, timeoutMs, idempotent })
export const V1Reply = Type.Object({ from: Type.String({ description: 'The peer that replied' }), data: Data })

export const V1Disconnected = Type.Object({
  peerId: Type.String(),
  closed: Type.Integer({ description: 'Number of closed connections, in all processes' })
})
export const V1Usage = Type.Object({
  appId: Type.String({ description: 'The namespace of the registry' }),
  periodStartUnix: Type.Integer({ description: 'When this process started to count, in epoch seconds' }),
  periodEndUnix: Type.Null(),
  concurrentNow: Type.Integer({ description: 'Connections to `/v1`: of all processes if a limit is set, otherwise of this process' }),
  messagesUsed: Type.Integer({ description: 'Frames that this process received on `/v1`' }),
  plan: Type.Object({ name: Type.Null(), maxConcurrentConnections: Type.Integer() })
})
