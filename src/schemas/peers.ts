import { Type, type Static } from '@sinclair/typebox'
import { PeerMetadata } from './messaging.js'

/** The name of a peer on `/v1`, in UTF-16 units. */
export const PeerId = Type.String({ minLength: 1, maxLength: 128, pattern: '^[^\\u0000-\\u001f\\u007f-\\u009f]+$', description: 'Without control characters', examples: ['alice'] })
/** The name of a channel on `/v1`, in UTF-16 units. */
export const ChannelName = Type.String({ minLength: 1, maxLength: 256, pattern: '^[^\\u0000-\\u001f\\u007f-\\u009f]+$', description: 'Any text without control characters', examples: ['room-1'] })

export const PeerPermission = Type.Union([Type.Literal('publish'), Type.Literal('subscribe'), Type.Literal('presence'), Type.Literal('send')])
export const PeerPermissions = Type.Array(PeerPermission, { maxItems: 16 })
export const PeerChannels = Type.Array(Type.String({ minLength: 1, maxLength: 256 }), { maxItems: 100, description: 'Names of channels; one that ends in `*` stands for all that go on within the segment, in `**` for all that go on at all' })
export const WelcomeMetadata = Type.Record(Type.String({ maxLength: 100 }), Type.Unknown(), { maxProperties: 100, description: 'What only the peer itself is told: 8 KiB of JSON at most' })

export const PeerTokenBody = Type.Object({
  peerId: PeerId,
  channels: PeerChannels,
  permissions: Type.Union([PeerPermissions], { default: ['publish', 'subscribe', 'presence', 'send'] }),
  expiresInSec: Type.Integer({ minimum: 1, maximum: 86_400, default: 3600 }),
  metadata: Type.Optional(WelcomeMetadata),
  peerMetadata: Type.Optional(PeerMetadata)
}, { examples: [{ peerId: 'alice', channels: ['room-1'], permissions: ['publish', 'subscribe', 'presence', 'send'], expiresInSec: 3600, peerMetadata: { username: 'Alice' } }] })
export type PeerTokenBody = Static<typeof PeerTokenBody>
export const PeerTokenAnswer = Type.Object({ token: Type.String({ description: 'A JSON Web Token' }), expiresAt: Type.Integer({ description: 'Epoch seconds' }) })
