import { CancelRequestFrame } from '../../protocol/frames/direct.js'
import { problem } from '../../errors.js'
import type { FrameHandler } from '../tiers.js'

/** Ends a request of this connection. */
export const cancelRequest: FrameHandler = {
  schema: CancelRequestFrame,
  namesOpen: true,
  handle (connection, frame, { messaging }) {
    const { requestId } = frame as CancelRequestFrame
    if (!messaging.requests.cancel(connection, requestId)) throw problem('unknown-request', 'No request of this name waits for its answer')
    connection.ack(frame)
  }
}
