import { DashboardAuthFrame } from '../../../protocol/frames/dashboard.js'
import type { FrameHandler } from '../../tiers.js'

/** Replaces the token of a dashboard. */
export const auth: FrameHandler = {
  schema: DashboardAuthFrame,
  handle (connection, frame) {
    return connection.tier.handshake!.replace!(connection, frame as DashboardAuthFrame)
  }
}
