import { AuthFrame } from '../../schemas/frames/agents.js'
import type { FrameHandler } from '../tiers.js'

/** Replaces the token of a connection, so that it outlives the first one. */
export const auth: FrameHandler = {
  schema: AuthFrame,
  handle (connection, frame, { handshake }) {
    const { token, requestId } = frame as AuthFrame
    return handshake.replace(connection, token, requestId)
  }
}
