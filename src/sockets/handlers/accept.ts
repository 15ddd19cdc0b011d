import { AcceptFrame } from '../../protocol/frames/direct.js'
import type { FrameHandler } from '../tiers.js'

/** Takes a request that this agent was given. */
export const accept: FrameHandler = {
  schema: AcceptFrame,
  answersLater: true,
  async handle (connection, frame, { messaging }) {
    await messaging.serving.answer(connection, (frame as unknown as AcceptFrame).rid, { op: 'accept' })
    connection.ack(frame)
  }
}
