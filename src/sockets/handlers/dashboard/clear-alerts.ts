import { ClearAlertsFrame } from '../../../schemas/frames/dashboard.js'
import type { FrameHandler } from '../../tiers.js'
import { acknowledge } from './reply.js'

export const clearAlerts: FrameHandler = {
  schema: ClearAlertsFrame,
  handle (connection, frame, { dashboard }) {
    dashboard.alerts.clear()
    dashboard.logs.add({ level: 'WARN', message: 'Alerts cleared', source: 'dashboard', user_id: connection.principal!.subject })
    acknowledge(connection, frame, 'clear_alerts_ack', { status: 'completed', message: 'Backend alerts cleared successfully' })
  }
}
