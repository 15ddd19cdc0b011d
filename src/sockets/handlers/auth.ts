import { AuthFrame } from '../../protocol/frames/agents.js'
import type { FrameHandler } from '../tiers.js'

/** Replaces the token of a connection, so that it outlives the first one. */
export const auth: FrameHandler = {
  schema: AuthFrame,
  handle (connection, frame) {
    return connection.tier.handshake!.replace!(connection, frame as AuthFrame)
  }
}
