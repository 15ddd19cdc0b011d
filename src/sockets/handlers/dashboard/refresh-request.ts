import { RefreshFrame } from '../../../protocol/frames/dashboard.js'
import type { FrameHandler } from '../../tiers.js'
import { acknowledge } from './reply.js'
import { sendFrames } from './send-frames.js'

/** All data frames at once, also while paused. */
export const refreshRequest: FrameHandler = {
  schema: RefreshFrame,
  handle (connection, frame, { dashboard }) {
    dashboard.logs.add({ level: 'INFO', message: 'Manual refresh', source: 'dashboard', user_id: connection.principal!.subject })
    const failed = sendFrames(connection, dashboard, ['monitoring', 'health', 'agents', 'logs', 'alert'])
    acknowledge(connection, frame, 'refresh_ack', failed.length === 0
      ? { status: 'completed', message: 'Fresh data sent' }
      : { status: 'error', message: `Refresh failed: no ${failed.join(', ')}` })
  }
}
