import { MessageFrame } from '../../schemas/frames/direct.js'
import { sentAck } from '../sent-ack.js'
import type { FrameHandler } from '../tiers.js'

/** Says something in the small dialect: to one peer or to all. Who speaks it asks for no answer. */
export const message: FrameHandler = {
  schema: MessageFrame,
  answersLater: true,
  async handle (connection, frame, { messaging: { direct } }) {
    const { requestId, to, content } = frame as unknown as MessageFrame
    if (to === undefined || to === null) {
      await direct.broadcast(connection, { data: content, origin: connection.id })
      return connection.ack(frame)
    }
    const sent = await direct.send(connection, { to, data: content, manner: 'small' })
    if (requestId !== undefined) connection.send(sentAck(requestId, sent))
  }
}
