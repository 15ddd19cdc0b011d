import { RejectFrame } from '../../protocol/frames/direct.js'
import type { FrameHandler } from '../tiers.js'

/** Refuses a request that this agent was given. */
export const reject: FrameHandler = {
  schema: RejectFrame,
  answersLater: true,
  async handle (connection, frame, { messaging }) {
    const { rid, code, message } = frame as unknown as RejectFrame
    await messaging.serving.answer(connection, rid, { op: 'reject', code, message })
    connection.ack(frame)
  }
}
