import { SendFrame } from '../../schemas/frames/direct.js'
import { sentAck } from '../sent-ack.js'
import type { FrameHandler } from '../tiers.js'

/** Says something to one peer. */
export const send: FrameHandler = {
  schema: SendFrame,
  answersLater: true,
  async handle (connection, frame, { messaging }) {
    const { requestId, to, data, msgId, level } = frame as unknown as SendFrame
    connection.send(sentAck(requestId, await messaging.direct.send(connection, { to, data, msgId, level })))
  }
}
