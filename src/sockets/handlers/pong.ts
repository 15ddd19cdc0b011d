import { PongFrame } from '../../protocol/frames/common.js'
import type { FrameHandler } from '../tiers.js'

/** That it came was the message. */
export const pong: FrameHandler = { schema: PongFrame, handle () {} }
