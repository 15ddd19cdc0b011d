import { Type, type Static } from '@sinclair/typebox'

/** What a grant lets its bearer do. */
export const Action = Type.Union([
  Type.Literal('subscribe'), Type.Literal('publish'), Type.Literal('presence'), Type.Literal('history'), Type.Literal('send'),
  Type.Literal('broadcast'), Type.Literal('work'), Type.Literal('serve'), Type.Literal('approve')
])
export type Action = Static<typeof Action>

/** A channel, or several: `*` is one segment and `**`, at the end, any rest. */
export const ChannelPattern = Type.String({ minLength: 1, maxLength: 256, description: 'A channel, or several of them: `*` stands for one segment and `**`, at the end, for any rest' })

export const Grant = Type.Object({
  channels: Type.Array(ChannelPattern, { maxItems: 100, default: [] }),
  allow: Type.Array(Action, { minItems: 1, maxItems: 9 })
}, { additionalProperties: false })
export type Grant = Static<typeof Grant>
export const Grants = Type.Array(Grant, { maxItems: 50 })

/** What others learn of a peer: a few facts, 4 KiB as JSON at most. */
export const PeerMetadata = Type.Record(Type.String({ maxLength: 100 }), Type.Unknown(), { maxProperties: 50, description: 'What others learn of the peer: 50 members and 4 KiB of JSON at most' })

const longestName = 2304

/** The name of a channel as a frame has it; which names there are is decided where they are read. */
export const ChannelName = Type.String({ minLength: 1, maxLength: longestName, description: 'The name of a channel: segments of `[A-Za-z0-9_.:@-]` joined by `/`, 256 characters at most; what `/v1` may call a channel besides is percent-encoded', examples: ['workflows/run-1/subtasks'] })
export const ChannelOrPattern = Type.String({ minLength: 1, maxLength: longestName, description: 'The name of a channel; of several with `*` for a segment and `**`, at the end, for any rest; or `$agents`', examples: ['workflows/run-1/subtasks'] })
export const Epoch = Type.String({ minLength: 1, maxLength: 200, description: 'Opaque; another one means that offsets begin anew', examples: ['f3Zk1q2a0'] })
export const Offset = Type.Integer({ minimum: 0, description: 'Grows by one with each message', examples: [17] })
export const Since = Type.Object({ epoch: Epoch, offset: Offset }, { description: 'The last position that is known' })
export const MsgId = Type.String({ minLength: 1, maxLength: 128, description: 'The same by the same sender is stored once within five minutes' })
