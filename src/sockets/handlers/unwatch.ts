import { UnwatchFrame } from '../../protocol/frames/common.js'
import type { FrameHandler } from '../tiers.js'

/** Ends the feed; lists of agents come again. Harmless without one. */
export const unwatch: FrameHandler = {
  schema: UnwatchFrame,
  handle (connection, frame, { readers }) {
    if (connection.watcher) readers.delete(connection.watcher)
    connection.watcher = null
    connection.ack(frame)
  }
}
