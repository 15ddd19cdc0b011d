import { PresenceFrame } from '../../protocol/frames/channels.js'
import type { FrameHandler } from '../tiers.js'

/** Who is subscribed to a channel now. */
export const presence: FrameHandler = {
  schema: PresenceFrame,
  async handle (connection, frame, { messaging }) {
    const { requestId, channel } = frame as unknown as PresenceFrame
    connection.push(await messaging.channels.presence(connection, channel, requestId))
  }
}
