import { V1SendFrame } from '../../../protocol/frames/v1.js'
import type { FrameHandler } from '../../tiers.js'

/** Says something to one peer. */
export const send: FrameHandler = {
  schema: V1SendFrame,
  codes: { '/to': 'invalid_peer_id' },
  answersLater: true,
  async handle (connection, frame, { messaging }) {
    const { to, data } = frame as unknown as V1SendFrame
    const { offset } = await messaging.direct.send(connection, { to, data })
    connection.ack(frame, { offset })
  }
}
