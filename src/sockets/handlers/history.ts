import { historyFrame } from '../../messaging/history.js'
import { HistoryFrame } from '../../protocol/frames/channels.js'
import type { FrameHandler } from '../tiers.js'

const usualLimit: number = HistoryFrame.properties.limit.default

/** What was published in a channel, as far as it is kept. */
export const history: FrameHandler = {
  schema: HistoryFrame,
  async handle (connection, frame, { messaging }) {
    const { requestId, channel, since, limit = usualLimit } = frame as unknown as HistoryFrame
    connection.send(historyFrame(await messaging.channels.history(connection, { channel, since, limit }), connection.dialect, requestId))
  }
}
