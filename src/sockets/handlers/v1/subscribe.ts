import { channelNamed } from '../../../protocol/channel-names.js'
import { V1SubscribeFrame } from '../../../protocol/frames/v1.js'
import type { FrameHandler } from '../../tiers.js'

/** Subscribes to a channel; who may see who is there is shown that without being asked. */
export const subscribe: FrameHandler = {
  schema: V1SubscribeFrame,
  codes: { '/channel': 'invalid_channel' },
  async handle (connection, frame, { messaging }) {
    const { channel, includeSenderMetadata } = frame as unknown as V1SubscribeFrame
    const presence = connection.rights.may('presence', channelNamed(channel, 'v1'))
    await messaging.channels.subscribe(connection, { channel, presence, includeSenderMetadata }, ({ epoch, offset }) => {
      connection.ack(frame, { channel, epoch, offset })
    })
  }
}
