import { RequestFrame } from '../../protocol/frames/direct.js'
import type { FrameHandler } from '../tiers.js'

/** Asks a peer, or whoever can do something, and passes on the reply. One that was cancelled has had its answer. */
export const request: FrameHandler = {
  schema: RequestFrame,
  answersLater: true,
  async handle (connection, frame, { messaging }) {
    const { requestId, to, capability, data, timeoutMs, idempotent } = frame as unknown as RequestFrame
    const reply = await messaging.requests.request(connection, { to, capability, data, timeoutMs, idempotent }, { peer: connection, requestId })
    if (reply) connection.send(`{"type":"response","requestId":${JSON.stringify(requestId)},"from":${JSON.stringify(reply.from)},"data":${reply.data}}`)
  }
}
