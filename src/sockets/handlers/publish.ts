import { payloadText } from '../../protocol/payload.js'
import { PublishFrame } from '../../protocol/frames/channels.js'
import type { FrameHandler } from '../tiers.js'

/** Says something to all who are subscribed to a channel, but not to the connection itself unless it asks for that; answered where a `requestId` asks for it. */
export const publish: FrameHandler = {
  schema: PublishFrame,
  answersLater: true,
  async handle (connection, frame, { messaging }) {
    const { channel, data, msgId, echo } = frame as unknown as PublishFrame
    const text = payloadText(data, connection.tier.options.maxMessageSize)
    const { epoch, offset, duplicate } = await messaging.channels.publish(connection, { channel, data: text, msgId, origin: echo ? undefined : connection.id })
    connection.ack(frame, { channel, epoch, offset, ...(duplicate && { duplicate }) })
  }
}
