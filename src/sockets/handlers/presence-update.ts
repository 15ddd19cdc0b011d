import { payloadText } from '../../protocol/payload.js'
import { assertTakesPart } from '../../messaging/participation.js'
import { PresenceUpdateFrame } from '../../protocol/frames/channels.js'
import type { FrameHandler } from '../tiers.js'

const maxBytes = 4096

/** What the peer says of itself to others. */
export const presenceUpdate: FrameHandler = {
  schema: PresenceUpdateFrame,
  async handle (connection, frame, { messaging }) {
    const { metadata } = frame as unknown as PresenceUpdateFrame
    assertTakesPart(connection)
    payloadText(metadata, maxBytes)
    await messaging.presence.say(connection, metadata)
    connection.ack(frame)
  }
}
