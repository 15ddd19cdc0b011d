import { ClearLogsFrame } from '../../../schemas/frames/dashboard.js'
import type { FrameHandler } from '../../tiers.js'
import { acknowledge } from './reply.js'

export const clearLogs: FrameHandler = {
  schema: ClearLogsFrame,
  handle (connection, frame, { dashboard }) {
    dashboard.logs.clear()
    dashboard.logs.add({ level: 'WARN', message: 'Logs cleared', source: 'dashboard', user_id: connection.principal!.subject })
    acknowledge(connection, frame, 'clear_logs_ack', { status: 'completed', message: 'Backend logs cleared successfully' })
  }
}
