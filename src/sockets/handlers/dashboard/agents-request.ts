import { AgentsRequestFrame } from '../../../protocol/frames/dashboard.js'
import type { FrameHandler } from '../../tiers.js'
import { acknowledge } from './reply.js'
import { sendFrames } from './send-frames.js'

/** The agents of now. */
export const agentsRequest: FrameHandler = {
  schema: AgentsRequestFrame,
  handle (connection, frame, { dashboard }) {
    const failed = sendFrames(connection, dashboard, ['agents'])
    acknowledge(connection, frame, 'agents_ack', failed.length === 0
      ? { status: 'completed', message: 'Agents data sent' }
      : { status: 'error', message: 'Failed to send agents data: they cannot be shown' })
  }
}
