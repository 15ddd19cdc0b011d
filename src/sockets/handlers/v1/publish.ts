import { payloadText } from '../../../protocol/payload.js'
import { V1PublishFrame } from '../../../protocol/frames/v1.js'
import type { FrameHandler } from '../../tiers.js'

/** Says something to all others who are subscribed to a channel. */
export const publish: FrameHandler = {
  schema: V1PublishFrame,
  codes: { '/channel': 'invalid_channel' },
  answersLater: true,
  async handle (connection, frame, { messaging }) {
    const { channel, data } = frame as unknown as V1PublishFrame
    const text = payloadText(data, connection.tier.options.maxMessageSize)
    const { epoch, offset } = await messaging.channels.publish(connection, { channel, data: text, origin: connection.id })
    connection.ack(frame, { channel, epoch, offset })
  }
}
