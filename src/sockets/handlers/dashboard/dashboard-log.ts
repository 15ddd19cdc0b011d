import { dashboardLog as readLog } from '../../../dashboard/logs.js'
import { DashboardLogFrame } from '../../../protocol/frames/dashboard.js'
import type { FrameHandler } from '../../tiers.js'

/** An entry that a page writes into the log; every dashboard gets it within a second. */
export const dashboardLog: FrameHandler = {
  schema: DashboardLogFrame,
  handle (connection, frame, { dashboard }) {
    const entry = readLog(frame.data)
    if (!entry) return connection.fail('invalid_frame', '/data: Expected a known level, a message and an ISO 8601 timestamp', frame)
    dashboard.logs.add(entry)
    connection.ack(frame)
  }
}
