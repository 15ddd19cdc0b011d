import { PingFrame } from '../../protocol/frames/common.js'
import { pongFor } from '../handshake.js'
import type { FrameHandler } from '../tiers.js'

export const ping: FrameHandler = {
  schema: PingFrame,
  handle (connection, frame) {
    connection.sendFrame(pongFor(frame))
  }
}
