import { ClearAlertsFrame } from '../../../protocol/frames/dashboard.js'
import type { FrameHandler } from '../../tiers.js'
import { tellCleared } from './reply.js'

export const clearAlerts: FrameHandler = {
  schema: ClearAlertsFrame,
  handle (connection, frame, services) {
    services.dashboard.alerts.clear()
    tellCleared('Alerts', connection, frame, services)
  }
}
