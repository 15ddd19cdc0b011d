import { problem } from '../../errors.js'
import { historyFrame } from '../../messaging/channels.js'
import { assertParticipates } from '../../messaging/access.js'
import { payloadText } from '../../protocol/validation.js'
import {
  HistoryFrame, PresenceFrame, PresenceUpdateFrame, PublishFrame, SubscribeFrame, UnsubscribeFrame
} from '../../protocol/frames/channels.js'
import { defineHandler } from '../dispatcher.js'

const defaultHistoryLimit: number = HistoryFrame.properties.limit.default
const maxPresenceBytes = 4096

/** Subscribes to a channel or pattern. Sends the ack, the missed messages, the presence snapshot, and then live messages. */
const subscribe = defineHandler(SubscribeFrame, async function subscribe (connection, frame, { messaging }) {
  const { requestId, channel, since, presence, includeSenderMetadata, group } = frame
  if (group !== undefined) throw problem('insufficient-permissions', 'Worker groups are not supported')
  await messaging.subscriptions.subscribe(connection, { channel, since, presence, includeSenderMetadata }, subscribed => {
    connection.sendFrame({ type: 'ack', requestId, channel, ...subscribed })
  })
})

const unsubscribe = defineHandler(UnsubscribeFrame, function unsubscribe (connection, frame, { messaging }) {
  messaging.subscriptions.unsubscribe(connection, frame.channel)
  connection.ack(frame)
})

/** Publishes to all subscribers of a channel; the connection itself receives the message only with `echo`. */
const publish = defineHandler(PublishFrame, async function publish (connection, frame, { messaging }) {
  const { channel, data, msgId, echo } = frame
  const text = payloadText(data, connection.tier.options.maxMessageSize)
  const origin = echo ? undefined : connection.id
  const { epoch, offset, duplicate } = await messaging.channels.publish(connection, { channel, data: text, msgId, origin })
  connection.ack(frame, { channel, epoch, offset, ...(duplicate && { duplicate }) })
}, { answersLater: true })

/** Sends the stored messages of a channel. */
const history = defineHandler(HistoryFrame, async function history (connection, frame, { messaging }) {
  const { requestId, channel, since, limit = defaultHistoryLimit } = frame
  const found = await messaging.channels.history(connection, { channel, since, limit })
  connection.send(historyFrame(found, connection.dialect, requestId))
})

/** Sends the current subscribers of a channel. */
const presence = defineHandler(PresenceFrame, async function presence (connection, { requestId, channel }, { messaging }) {
  connection.push(await messaging.channels.presenceFrame(connection, channel, requestId))
})

/** Replaces the metadata that the peer shows to others. */
const presenceUpdate = defineHandler(PresenceUpdateFrame, async function presenceUpdate (connection, frame, { messaging }) {
  assertParticipates(connection)
  payloadText(frame.metadata, maxPresenceBytes)
  await messaging.presence.update(connection, frame.metadata)
  connection.ack(frame)
})

export const channelHandlers = { subscribe, unsubscribe, publish, history, presence, presence_update: presenceUpdate }
