import { ResumeFrame } from '../../../protocol/frames/dashboard.js'
import type { FrameHandler } from '../../tiers.js'
import { acknowledge } from './reply.js'
import { sendFrames } from './send-frames.js'

/** Ends a pause; what was missed is in the stored alerts, which come along. */
export const resumeMonitoring: FrameHandler = {
  schema: ResumeFrame,
  handle (connection, frame, { dashboard }) {
    connection.isPaused = false
    dashboard.logs.add({ level: 'INFO', message: 'Monitoring resumed', source: 'dashboard', user_id: connection.principal!.subject })
    sendFrames(connection, dashboard, ['monitoring', 'health', 'alert'])
    acknowledge(connection, frame, 'resume_ack', { status: 'resumed' })
  }
}
