import { assertParticipates } from '../../messaging/access.js'
import { InboxFrame, MessageFrame, SendFrame } from '../../protocol/frames/direct.js'
import { defineHandler } from './define.js'

/** Sends a direct message to one peer. */
const send = defineHandler(SendFrame, async function send (connection, frame, { messaging }) {
  const { to, data, msgId, level } = frame
  const { offset, delivered, duplicate } = await messaging.direct.send(connection, { to, data, msgId, level })
  connection.ack(frame, { offset, delivered, ...(duplicate && { duplicate }) })
}, { answersLater: true })

/** Sends the messages in the peer's inbox that follow `since`, after the ack. */
const inbox = defineHandler(InboxFrame, async function inbox (connection, frame, { messaging }) {
  assertParticipates(connection)
  const { requestId, since } = frame
  const { epoch, offset, recovered, start } = await messaging.direct.replay(connection, since)
  connection.sendFrame({ type: 'ack', requestId, epoch, offset, recovered })
  start()
}, { answersLater: true })

/** A message of the small dialect: to one peer or, without `to`, to all. */
const message = defineHandler(MessageFrame, async function message (connection, frame, { messaging: { direct } }) {
  const { to, content } = frame
  if (to === undefined || to === null) {
    await direct.broadcast(connection, { data: content, origin: connection.id })
    return connection.ack(frame)
  }
  const { offset, delivered } = await direct.send(connection, { to, data: content, format: 'small' })
  connection.ack(frame, { offset, delivered })
}, { answersLater: true })

export const directHandlers = { send, inbox, message }
