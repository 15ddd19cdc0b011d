import { SendFrame } from '../../schemas/frames/direct.js'
import { sentAck } from '../sent-ack.js'
import type { FrameHandler } from '../tiers.js'

/** Says something to one peer; answered where a `requestId` asks for it. */
export const send: FrameHandler = {
  schema: SendFrame,
  answersLater: true,
  async handle (connection, frame, { messaging }) {
    const { requestId, to, data, msgId, level } = frame as unknown as SendFrame
    const sent = await messaging.direct.send(connection, { to, data, msgId, level })
    if (requestId !== undefined) connection.send(sentAck(requestId, sent))
  }
}
