import { SendFrame } from '../../protocol/frames/direct.js'
import type { FrameHandler } from '../tiers.js'

/** Says something to one peer; answered where a `requestId` asks for it. */
export const send: FrameHandler = {
  schema: SendFrame,
  answersLater: true,
  async handle (connection, frame, { messaging }) {
    const { to, data, msgId, level } = frame as unknown as SendFrame
    const { offset, delivered, duplicate } = await messaging.direct.send(connection, { to, data, msgId, level })
    connection.ack(frame, { offset, delivered, ...(duplicate && { duplicate }) })
  }
}
