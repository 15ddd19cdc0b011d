import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { collectMethods } from '../src/http/methods.js'
import type { Sockets } from '../src/sockets/sockets.js'
import type { Core } from '../src/core.js'
import { PeerTokenAnswer, PeerTokenBody, v1Answers, V1Usage, IdempotencyHeaders } from '../src/protocol/schemas/peers.js'
import { assertParticipates } from '../src/messaging/access.js'
import { assertOperator, callerOf, identifyCaller, once } from './v1/caller.js'
import channelRoutes from './v1/channels.js'
import { createErrorHandler } from './v1/errors.js'
import peerRoutes from './v1/peers.js'

export interface V1Services {
  core: Core
  sockets: Sockets
  onForbidden: (error: Error, request: FastifyRequest) => void
}

const tags = ['v1']
const longestName = 256

/** Channels stand in paths, and how long a part of a path may be is the host's to say. */
function warnOfShortNames ({ initialConfig: { maxParamLength, routerOptions } }: FastifyInstance, { log }: Core) {
  const longest = routerOptions?.maxParamLength ?? maxParamLength ?? longestName
  if (longest < longestName) log.warn({ option: 'routerOptions.maxParamLength', longest }, 'channels with longer names cannot be named in paths: give Fastify a maxParamLength of 256')
}

/** Below `/v1`: what back ends ask for that have no socket. */
const v1Routes: FastifyPluginAsyncTypebox<V1Services> = async function v1Routes (scope, { core, sockets, onForbidden }) {
  const { peerTokens, options, now } = core
  const startedAt = Math.floor(now() / 1000)
  const refuseOtherMethods = collectMethods(scope)
  warnOfShortNames(scope, core)
  scope.decorateRequest('agentRegistryCaller', null)
  scope.setErrorHandler(createErrorHandler(onForbidden))
  scope.addHook('preValidation', identifyCaller(core))

  scope.post('/tokens', {
    schema: { tags, summary: 'A token for a peer, with rights that whoever asks has', headers: IdempotencyHeaders, body: PeerTokenBody, response: v1Answers(PeerTokenAnswer) }
  }, async function mintPeerToken (request) {
    const caller = callerOf(request)
    assertParticipates(caller)
    return once(core, request, async () => {
      const { token, expiresAt } = peerTokens.mint(caller, request.body)
      return { token, expiresAt }
    })
  })

  scope.get('/usage', {
    schema: { tags, summary: 'How much `/v1` is used', response: v1Answers(V1Usage) }
  }, async function usage (request) {
    assertOperator(callerOf(request))
    const { slots, traffic } = sockets
    return {
      appId: options.namespace,
      periodStartUnix: startedAt,
      periodEndUnix: null,
      concurrentNow: slots.fleet.countOf('v1'),
      messagesUsed: traffic.v1.framesIn,
      plan: { name: null, maxConcurrentConnections: options.v1Ws.maxFleetConnections ?? options.v1Ws.maxConnections }
    }
  })

  await scope.register(channelRoutes, { core, prefix: '/channels' })
  await scope.register(peerRoutes, { core, disconnects: sockets.disconnects })
  refuseOtherMethods()
}

export default v1Routes
