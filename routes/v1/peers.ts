import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Core } from '../../src/core.js'
import type { RequestInput } from '../../src/messaging/requests/open-requests.js'
import { assertMay } from '../../src/messaging/access.js'
import { IdempotencyHeaders, PeerParams, v1Answers, V1CapabilityBody, V1Disconnected, V1Reply, V1RequestBody, V1SendBody, V1Sent } from '../../src/protocol/schemas/peers.js'
import type { PeerDisconnects } from '../../src/sockets/hub.js'
import { idempotencyKeyOf, messageIdOf } from '../../src/http/idempotency.js'
import { assertOperator, callerOf, once, speakerFor } from './caller.js'

const tags = ['v1']

/** Aborted when nobody waits for the answer any more; with a key somebody may come back for it. */
function hangUpOf (request: FastifyRequest, { raw }: FastifyReply): AbortSignal | undefined {
  if (idempotencyKeyOf(request) !== undefined) return undefined
  const hangUp = new AbortController()
  raw.once('close', () => { hangUp.abort() })
  return hangUp.signal
}

/** `/v1/peers/*` and requests to whoever can. */
const peerRoutes: FastifyPluginAsyncTypebox<{ core: Core, disconnects: PeerDisconnects }> = async function peerRoutes (scope, { core, disconnects }) {
  const { messaging: { direct, requests } } = core

  async function ask (request: FastifyRequest, reply: FastifyReply, from: string | undefined, order: RequestInput) {
    const speaker = speakerFor(core, callerOf(request), from)
    assertMay(speaker, 'send')
    return once(core, request, async () => {
      const answer = await requests.ask(speaker.peerId, order, hangUpOf(request, reply))
      return { from: answer.from, data: JSON.parse(answer.data) as unknown }
    }, order.timeoutMs)
  }

  scope.delete('/peers/:peerId', {
    schema: { tags, summary: 'Closes all connections of a peer', params: PeerParams, response: v1Answers(V1Disconnected) }
  }, async function disconnectPeer (request) {
    assertOperator(callerOf(request))
    const { peerId } = request.params
    return { peerId, closed: await disconnects.disconnect(peerId) }
  })

  scope.post('/peers/:peerId/send', {
    schema: { tags, summary: 'Says something to a peer', params: PeerParams, headers: IdempotencyHeaders, body: V1SendBody, response: v1Answers(V1Sent) }
  }, async function sendToPeer (request) {
    const { params: { peerId: to }, body: { data, from, msgId, level } } = request
    const speaker = speakerFor(core, callerOf(request), from)
    return once(core, request, async () => {
      const { offset, delivered, duplicate } = await direct.send(speaker, { to, data, msgId: messageIdOf(request, msgId), level })
      return { offset, delivered, ...(duplicate && { duplicate: true as const }) }
    })
  })

  scope.post('/peers/:peerId/request', {
    schema: { tags, summary: 'Asks an agent, and waits for its reply', params: PeerParams, headers: IdempotencyHeaders, body: V1RequestBody, response: v1Answers(V1Reply) }
  }, async function requestOfPeer (request, reply) {
    const { from, ...order } = request.body
    return ask(request, reply, from, { ...order, to: request.params.peerId })
  })

  scope.post('/request', {
    schema: { tags, summary: 'Asks the least loaded agent that has a capability, and waits for its reply', headers: IdempotencyHeaders, body: V1CapabilityBody, response: v1Answers(V1Reply) }
  }, async function requestOfCapability (request, reply) {
    const { from, ...order } = request.body
    return ask(request, reply, from, order)
  })
}

export default peerRoutes
