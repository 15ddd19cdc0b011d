import { MessageFrame } from '../../protocol/frames/direct.js'
import type { FrameHandler } from '../tiers.js'

/** Says something in the small dialect: to one peer or to all. Who speaks it asks for no answer. */
export const message: FrameHandler = {
  schema: MessageFrame,
  answersLater: true,
  async handle (connection, frame, { messaging: { direct } }) {
    const { to, content } = frame as unknown as MessageFrame
    if (to === undefined || to === null) {
      await direct.broadcast(connection, { data: content, origin: connection.id })
      return connection.ack(frame)
    }
    const { offset, delivered } = await direct.send(connection, { to, data: content, manner: 'small' })
    connection.ack(frame, { offset, delivered })
  }
}
