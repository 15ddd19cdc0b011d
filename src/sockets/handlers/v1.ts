import { parseChannel } from '../../protocol/channel-names.js'
import { V1PublishFrame, V1SendFrame, V1SubscribeFrame, V1UnsubscribeFrame } from '../../protocol/frames/v1.js'
import { payloadText } from '../../protocol/validation.js'
import { defineHandler } from '../dispatcher.js'

const codes = { '/channel': 'invalid_channel', '/to': 'invalid_peer_id' } as const

/** Subscribes to a channel; a peer with the presence right also receives presence. */
const subscribe = defineHandler(V1SubscribeFrame, async function subscribe (connection, frame, { messaging }) {
  const { channel, includeSenderMetadata } = frame
  const presence = connection.rights.may('presence', parseChannel(channel, 'v1'))
  await messaging.subscriptions.subscribe(connection, { channel, presence, includeSenderMetadata }, ({ epoch, offset }) => {
    connection.ack(frame, { channel, epoch, offset })
  })
}, { codes })

const unsubscribe = defineHandler(V1UnsubscribeFrame, function unsubscribe (connection, frame, { messaging }) {
  messaging.subscriptions.unsubscribe(connection, frame.channel)
  connection.ack(frame)
}, { codes })

/** Publishes to all other subscribers of a channel. */
const publish = defineHandler(V1PublishFrame, async function publish (connection, frame, { messaging }) {
  const { channel, data } = frame
  const text = payloadText(data, connection.tier.options.maxMessageSize)
  const { epoch, offset } = await messaging.channels.publish(connection, { channel, data: text, origin: connection.id })
  connection.ack(frame, { channel, epoch, offset })
}, { codes, answersLater: true })

/** Sends a direct message to one peer. */
const send = defineHandler(V1SendFrame, async function send (connection, frame, { messaging }) {
  const { to, data } = frame
  const { offset } = await messaging.direct.send(connection, { to, data })
  connection.ack(frame, { offset })
}, { codes, answersLater: true })

export const v1Handlers = { subscribe, unsubscribe, publish, send }
