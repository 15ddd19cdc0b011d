import { ReplyFrame } from '../../protocol/frames/direct.js'
import type { FrameHandler } from '../tiers.js'

/** Answers a request that this agent was given. */
export const reply: FrameHandler = {
  schema: ReplyFrame,
  answersLater: true,
  async handle (connection, frame, { messaging }) {
    const { rid, data } = frame as unknown as ReplyFrame
    await messaging.serving.reply(connection, rid, data)
    connection.ack(frame)
  }
}
