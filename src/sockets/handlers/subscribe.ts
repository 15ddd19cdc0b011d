import { problem } from '../../errors.js'
import { SubscribeFrame } from '../../protocol/frames/channels.js'
import type { FrameHandler } from '../tiers.js'

/** Subscribes the connection to a channel or pattern: the answer, what was missed, who is there, and then what comes. */
export const subscribe: FrameHandler = {
  schema: SubscribeFrame,
  async handle (connection, frame, { messaging }) {
    const { requestId, group, ...request } = frame as unknown as SubscribeFrame
    if (group !== undefined) throw problem('insufficient-permissions', 'Worker groups are not offered')
    await messaging.channels.subscribe(connection, request, subscribed => {
      connection.sendFrame({ type: 'ack', requestId, channel: request.channel, ...subscribed })
    })
  }
}
