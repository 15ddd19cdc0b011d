import { Type, type Static } from '@sinclair/typebox'

/** An action that a grant permits. */
export const Action = Type.Union([
  Type.Literal('subscribe'), Type.Literal('publish'), Type.Literal('presence'), Type.Literal('history'), Type.Literal('send'),
  Type.Literal('broadcast'), Type.Literal('work'), Type.Literal('serve'), Type.Literal('approve')
])
export type Action = Static<typeof Action>

/** A channel or a pattern of channels. */
export const ChannelPattern = Type.String({
  minLength: 1,
  maxLength: 256,
  description: 'A channel or a pattern: `*` matches one segment; `**`, as the last segment, matches one or more'
})

export const Grant = Type.Object({
  channels: Type.Array(ChannelPattern, { maxItems: 100, default: [] }),
  allow: Type.Array(Action, { minItems: 1, maxItems: 9 })
}, { additionalProperties: false })
export type Grant = Static<typeof Grant>
export const Grants = Type.Array(Grant, { maxItems: 50 })

/** Metadata of a peer that other peers see. */
export const PeerMetadata = Type.Record(Type.String({ maxLength: 100 }), Type.Unknown(), {
  maxProperties: 50,
  description: 'Metadata that other peers see: at most 50 members and 4 KiB of JSON'
})

const longestName = 2304

/** A channel name in a frame. The schema checks only the length; `parseChannel` checks the name. */
export const ChannelName = Type.String({
  minLength: 1,
  maxLength: longestName,
  description: 'A channel name: segments of `[A-Za-z0-9_.:@-]` joined by `/`, at most 256 characters. Other characters of `/v1` names ' +
    'are percent-encoded',
  examples: ['workflows/run-1/subtasks']
})
export const ChannelOrPattern = Type.String({
  minLength: 1,
  maxLength: longestName,
  description: 'A channel name, a pattern (`*` matches one segment; `**`, as the last segment, matches one or more) or `$agents`',
  examples: ['workflows/run-1/subtasks']
})
export const Epoch = Type.String({
  minLength: 1,
  maxLength: 200,
  description: 'Opaque. When it changes, offsets start again',
  examples: ['f3Zk1q2a0']
})
export const Offset = Type.Integer({ minimum: 0, description: 'Increases by one with each message', examples: [17] })
export const Since = Type.Object({ epoch: Epoch, offset: Offset }, { description: 'The last known position' })
export const MsgId = Type.String({
  minLength: 1,
  maxLength: 128,
  description: 'Messages with the same id from the same sender are stored once within five minutes'
})
