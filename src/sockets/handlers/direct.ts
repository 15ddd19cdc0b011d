import { problem } from '../../errors.js'
import { assertParticipates } from '../../messaging/access.js'
import {
  AcceptFrame, CancelRequestFrame, InboxFrame, MessageFrame, RejectFrame, ReplyFrame, RequestFrame, SendFrame
} from '../../protocol/frames/direct.js'
import { defineHandler } from '../dispatcher.js'

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

/** Sends a request to a peer or to an agent with a capability, and passes on the reply. A cancelled request gets no `response`. */
const request = defineHandler(RequestFrame, async function request (connection, frame, { messaging }) {
  const { requestId, to, capability, data, timeoutMs, idempotent } = frame
  const order = { to, capability, data, timeoutMs, idempotent }
  const reply = await messaging.requests.request({ peer: connection, requestId }, order)
  if (!reply) return
  const [id, from] = [JSON.stringify(requestId), JSON.stringify(reply.from)]
  connection.send(`{"type":"response","requestId":${id},"from":${from},"data":${reply.data}}`)
}, { answersLater: true })

/** The agent accepts a request. */
const accept = defineHandler(AcceptFrame, async function accept (connection, frame, { messaging }) {
  await messaging.responder.respond(connection, frame.rid, { op: 'accept' })
  connection.ack(frame)
}, { answersLater: true })

/** The agent replies to a request. */
const reply = defineHandler(ReplyFrame, async function reply (connection, frame, { messaging }) {
  await messaging.responder.reply(connection, frame.rid, frame.data)
  connection.ack(frame)
}, { answersLater: true })

/** The agent rejects a request. */
const reject = defineHandler(RejectFrame, async function reject (connection, frame, { messaging }) {
  const { rid, code, message } = frame
  await messaging.responder.respond(connection, rid, { op: 'reject', code, message })
  connection.ack(frame)
}, { answersLater: true })

/** Cancels an open request of this connection. */
const cancelRequest = defineHandler(CancelRequestFrame, function cancelRequest (connection, frame, { messaging }) {
  if (!messaging.requests.cancel(connection, frame.requestId)) throw problem('unknown-request', 'No open request has this requestId')
  connection.ack(frame)
}, { namesOpen: true })

export const requestHandlers = { request, accept, reply, reject, cancel_request: cancelRequest }
