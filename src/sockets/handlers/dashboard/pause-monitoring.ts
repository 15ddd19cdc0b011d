import { PauseFrame } from '../../../protocol/frames/dashboard.js'
import type { FrameHandler } from '../../tiers.js'
import { acknowledge } from './reply.js'

/** Holds back `monitoring`, `health` and `alert` on this connection. */
export const pauseMonitoring: FrameHandler = {
  schema: PauseFrame,
  handle (connection, frame, { dashboard }) {
    connection.isPaused = true
    dashboard.logs.add({ level: 'WARN', message: 'Monitoring paused', source: 'dashboard', user_id: connection.principal!.subject })
    acknowledge(connection, frame, 'pause_ack', { status: 'paused' })
  }
}
