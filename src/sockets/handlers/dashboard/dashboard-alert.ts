import { DashboardAlertFrame } from '../../../schemas/frames/dashboard.js'
import type { FrameHandler } from '../../tiers.js'

/** Stores alerts that a page raises. Pages send back every alert they get: what is stored already is left out. */
export const dashboardAlert: FrameHandler = {
  schema: DashboardAlertFrame,
  handle (connection, frame, { dashboard }) {
    dashboard.alerts.add(frame.data)
    connection.ack(frame)
  }
}
