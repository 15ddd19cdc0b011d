import { V1UnsubscribeFrame } from '../../../protocol/frames/v1.js'
import type { FrameHandler } from '../../tiers.js'

/** Ends a subscription; done also where there is none. */
export const unsubscribe: FrameHandler = {
  schema: V1UnsubscribeFrame,
  codes: { '/channel': 'invalid_channel' },
  handle (connection, frame, { messaging }) {
    messaging.channels.unsubscribe(connection, (frame as unknown as V1UnsubscribeFrame).channel)
    connection.ack(frame)
  }
}
