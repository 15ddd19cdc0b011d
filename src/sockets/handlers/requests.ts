import { problem } from '../../errors.js'
import { AcceptFrame, CancelRequestFrame, RejectFrame, ReplyFrame, RequestFrame } from '../../protocol/frames/direct.js'
import { defineHandler } from './define.js'

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
