import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Core } from '../../src/core.js'
import { problem } from '../../src/errors.js'
import { channelKey, parseChannel } from '../../src/protocol/channel-names.js'
import type { LogPosition } from '../../src/storage/message-broker.js'
import { historyFrame } from '../../src/messaging/channels.js'
import { payloadText } from '../../src/protocol/validation.js'
import { ChannelParams, IdempotencyHeaders, v1Answers, V1History, V1HistoryQuery, V1Peers, V1PublishBody, V1Published } from '../../src/protocol/schemas/peers.js'
import type { Static } from '@sinclair/typebox'
import { messageIdOf } from '../../src/http/idempotency.js'
import { callerOf, once, speakerFor } from './caller.js'

const tags = ['v1']

function positionOf ({ epoch, offset }: Static<typeof V1HistoryQuery>): LogPosition | undefined {
  if ((epoch === undefined) !== (offset === undefined)) throw problem('invalid-input', 'epoch and offset belong together')
  return epoch === undefined ? undefined : { epoch, offset: offset! }
}

/** `/v1/channels/*`. */
const channelRoutes: FastifyPluginAsyncTypebox<{ core: Core }> = async function channelRoutes (scope, { core }) {
  const { messaging: { channels, presence }, options } = core

  scope.get('/:channel/peers', {
    schema: { tags, summary: 'Who is subscribed to a channel', params: ChannelParams, response: v1Answers(V1Peers) }
  }, async function peersOfChannel (request) {
    const { channel } = request.params
    const { members } = await presence.members(channels.presenceSetOf(callerOf(request), channel))
    return { channel, peers: members.map(({ peerId, metadata }) => ({ peerId, metadata: JSON.parse(metadata) })) }
  })

  scope.post('/:channel/publish', {
    schema: { tags, summary: 'Publishes a message', params: ChannelParams, headers: IdempotencyHeaders, body: V1PublishBody, response: v1Answers(V1Published) }
  }, async function publishToChannel (request) {
    const { params: { channel }, body: { data, from, msgId } } = request
    const speaker = speakerFor(core, callerOf(request), from)
    return once(core, request, async () => {
      const { members } = await presence.members(channelKey(parseChannel(channel, 'v1')))
      const text = payloadText(data, options.agentsWs.maxMessageSize)
      const { epoch, offset, duplicate } = await channels.publish(speaker, { channel, data: text, msgId: messageIdOf(request, msgId) })
      return { channel, epoch, offset, subscribers: members.length, ...(duplicate && { duplicate: true as const }) }
    })
  })

  scope.get('/:channel/history', {
    schema: { tags, summary: 'What was published in a channel, as far as it is kept', params: ChannelParams, querystring: V1HistoryQuery, response: v1Answers(V1History) }
  }, async function historyOfChannel (request) {
    const { params: { channel }, query } = request
    const history = await channels.history(callerOf(request), { channel, since: positionOf(query), limit: query.limit })
    return JSON.parse(historyFrame(history, 'v1', undefined)) as Static<typeof V1History>
  })
}

export default channelRoutes
