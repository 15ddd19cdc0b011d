import { ClearLogsFrame } from '../../../protocol/frames/dashboard.js'
import type { FrameHandler } from '../../tiers.js'
import { tellCleared } from './reply.js'

export const clearLogs: FrameHandler = {
  schema: ClearLogsFrame,
  handle (connection, frame, services) {
    services.dashboard.logs.clear()
    tellCleared('Logs', connection, frame, services)
  }
}
