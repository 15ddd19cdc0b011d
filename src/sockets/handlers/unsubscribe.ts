import { UnsubscribeFrame } from '../../protocol/frames/channels.js'
import type { FrameHandler } from '../tiers.js'

/** Ends a subscription; done also where there is none. */
export const unsubscribe: FrameHandler = {
  schema: UnsubscribeFrame,
  handle (connection, frame, { messaging }) {
    messaging.channels.unsubscribe(connection, (frame as unknown as UnsubscribeFrame).channel)
    connection.ack(frame)
  }
}
