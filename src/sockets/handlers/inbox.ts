import { InboxFrame } from '../../protocol/frames/direct.js'
import { assertTakesPart } from '../../messaging/participation.js'
import type { FrameHandler } from '../tiers.js'

/** Sends what this peer missed. */
export const inbox: FrameHandler = {
  schema: InboxFrame,
  answersLater: true,
  async handle (connection, frame, { messaging }) {
    assertTakesPart(connection)
    const { requestId, since } = frame as InboxFrame
    const { epoch, offset, recovered, start } = await messaging.direct.replay(connection, since)
    connection.sendFrame({ type: 'ack', requestId, epoch, offset, recovered })
    start()
  }
}
