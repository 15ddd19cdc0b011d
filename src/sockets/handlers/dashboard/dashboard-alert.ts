import { hasAlert } from '../../../dashboard/alerts.js'
import { DashboardAlertFrame } from '../../../protocol/frames/dashboard.js'
import type { FrameHandler } from '../../tiers.js'

/** Stores alerts that a page raises. Pages send back every alert they get: what is stored already is left out. */
export const dashboardAlert: FrameHandler = {
  schema: DashboardAlertFrame,
  handle (connection, frame, { dashboard }) {
    if (!hasAlert(frame.data)) return connection.fail('missing_data', 'Expected an alert with a message or a title', frame)
    dashboard.alerts.add(frame.data)
    connection.ack(frame)
  }
}
