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
