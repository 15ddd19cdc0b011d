import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Static } from '@sinclair/typebox'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest, preValidationAsyncHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import { principalOf } from '../plugins/auth.js'
import { extrasOf, toProblem, type ForbiddenListener } from '../plugins/problems.js'
import type { PeerTokens, SecretKeys } from '../src/auth/peers.js'
import { peerIdOf, Rights } from '../src/auth/rights.js'
import { problem, type ProblemError, type ProblemType } from '../src/errors.js'
import { idempotencyKeyOf, messageIdOf, type Idempotency } from '../src/http/idempotency.js'
import { collectMethods } from '../src/http/methods.js'
import { bearerOf } from '../src/http/requests.js'
import type { Clock } from '../src/lib/clock.js'
import { assertMay, assertParticipates } from '../src/messaging/access.js'
import { historyFrame } from '../src/messaging/channels.js'
import type { Messaging } from '../src/messaging/messaging.js'
import type { Sender } from '../src/messaging/peer.js'
import type { RequestInput } from '../src/messaging/requests/open-requests.js'
import type { ResolvedOptions } from '../src/options.js'
import { channelKey, parseChannel } from '../src/protocol/channel-names.js'
import {
  ChannelParams, IdempotencyHeaders, PeerParams, PeerTokenAnswer, PeerTokenBody, v1Answers, V1CapabilityBody, V1Disconnected, V1History,
  V1HistoryQuery, V1Peers, V1PublishBody, V1Published, V1Reply, V1RequestBody, V1SendBody, V1Sent, V1Usage
} from '../src/protocol/schemas/peers.js'
import { payloadText } from '../src/protocol/validation.js'
import type { Sockets } from '../src/sockets/sockets.js'
import type { LogPosition } from '../src/storage/message-broker.js'

interface V1RoutesOptions {
  options: ResolvedOptions
  messaging: Messaging
  peerTokens: PeerTokens
  secretKeys: SecretKeys
  idempotency: Idempotency
  sockets: Sockets
  now: Clock
  onForbidden: ForbiddenListener
}

/** The client of a request, as a peer. */
interface Caller extends Sender {
  /** Back ends and admins may act on other peers and in their name. */
  readonly isOperator: boolean
}

declare module 'fastify' {
  interface FastifyRequest {
    agentRegistryCaller: Caller | null
  }
}

type Routes = FastifyPluginAsyncTypebox<V1RoutesOptions>

const tags = ['v1']
const maxNameLength = 256

/** The error codes of the Metered REST API; all other problem types keep their name. */
const errorCodes: Partial<Record<ProblemType, string>> = {
  'authentication-failed': 'unauthorized',
  'token-invalid': 'unauthorized',
  'session-invalid': 'unauthorized',
  'insufficient-permissions': 'action_not_permitted',
  'validation-failed': 'invalid_request',
  'invalid-input': 'invalid_request',
  'request-error': 'invalid_request',
  'request-too-large': 'invalid_request',
  'unsupported-media-type': 'invalid_request',
  'missing-data': 'invalid_request'
}

function errorCodeOf ({ type }: ProblemError): string {
  return errorCodes[type] ?? type.replaceAll('-', '_')
}

/** Creates the handler that responds to errors with `{error, message}`. */
function createErrorHandler (onForbidden: ForbiddenListener) {
  return function v1ErrorHandler (error: FastifyError, request: FastifyRequest, reply: FastifyReply) {
    const converted = toProblem(error, request)
    if (converted.statusCode === 403) onForbidden(converted, request)
    // The Metered REST API knows no 422.
    const status = converted.type === 'validation-failed' ? 400 : converted.statusCode
    const reason = converted.type === 'request-rejected' ? { reason: converted.members?.reason } : {}
    if (status === 401) reply.header('www-authenticate', 'Bearer')
    const { headers = {} } = extrasOf(converted)
    return reply.code(status).headers(headers).send({ error: errorCodeOf(converted), message: converted.message, ...reason })
  }
}

/** Channel names are path parameters, whose maximum length the host configures. */
function warnOfShortParameters ({ initialConfig: { maxParamLength, routerOptions }, log }: FastifyInstance) {
  const longest = routerOptions?.maxParamLength ?? maxParamLength ?? maxNameLength
  if (longest >= maxNameLength) return
  const message = 'Channels with longer names cannot be used in paths: set the maxParamLength of Fastify to 256'
  log.warn({ option: 'routerOptions.maxParamLength', longest }, message)
}

/** Creates the hook that accepts secret keys, and tokens of agents and admins. */
function identifyCaller (scope: FastifyInstance, secretKeys: SecretKeys): preValidationAsyncHookHandler {
  const checkToken = scope.agentRegistryGuard({ takes: ['agent', 'admin'], level: 'agent' })

  return async function identify (request, reply) {
    const backEnd = await secretKeys.principalOf(bearerOf(request) ?? '', request.ip)
    if (backEnd) request.agentRegistryPrincipal = backEnd
    else await checkToken.call(this, request, reply)
    const principal = principalOf(request)
    // Names of peers cannot begin with $, so the name of a key never conflicts with them.
    const peerId = backEnd ? `$${backEnd.subject}` : peerIdOf(principal)
    const isOperator = backEnd !== undefined || principal.type === 'admin'
    request.agentRegistryCaller = { peerId, dialect: 'v1', rights: new Rights(principal), authenticatedPrincipal: principal, isOperator }
  }
}

function callerOf ({ agentRegistryCaller: caller }: FastifyRequest): Caller {
  if (caller === null) throw problem('authentication-failed', 'Authentication required')
  return caller
}

/** @throws insufficient-permissions */
function assertOperator ({ isOperator }: Caller): void {
  if (!isOperator) throw problem('insufficient-permissions', 'Only back ends and admins may do this')
}

/** The sender of a message: the caller, or the peer in whose name an operator sends. @throws insufficient-permissions; name-taken */
function senderOf (caller: Caller, from: string | undefined, peerTokens: PeerTokens): Sender {
  if (from === undefined || from === caller.peerId) return caller
  if (!caller.isOperator) throw problem('insufficient-permissions', 'Agents can only send in their own name')
  peerTokens.assertName(caller, from)
  return { ...caller, peerId: from }
}

/** Runs a request once if it has an `Idempotency-Key`. @param withinMs time limit of the request */
function once<T> (idempotency: Idempotency, request: FastifyRequest, run: () => Promise<T>, withinMs?: number): Promise<T> {
  return idempotency.onceFor({ request, caller: callerOf(request).peerId, withinMs }, run)
}

/** Aborted when the client disconnects. A request with an Idempotency-Key continues, because the client may repeat it. */
function disconnectSignalOf (request: FastifyRequest, { raw }: FastifyReply): AbortSignal | undefined {
  if (idempotencyKeyOf(request) !== undefined) return undefined
  const controller = new AbortController()
  raw.once('close', () => { controller.abort() })
  return controller.signal
}

function positionOf ({ epoch, offset }: Static<typeof V1HistoryQuery>): LogPosition | undefined {
  if (epoch === undefined && offset === undefined) return undefined
  if (epoch === undefined || offset === undefined) throw problem('invalid-input', 'epoch and offset belong together')
  return { epoch, offset }
}

/** `/v1/channels/*`. */
const channelRoutes: Routes = async function channelRoutes (scope, { options, messaging, peerTokens, idempotency }) {
  const { channels, presence } = messaging

  scope.get('/channels/:channel/peers', {
    schema: { tags, summary: 'List the subscribers of a channel', params: ChannelParams, response: v1Answers(V1Peers) }
  }, async function peersOfChannel (request) {
    const { channel } = request.params
    const { members } = await presence.members(channels.presenceSetOf(callerOf(request), channel))
    return { channel, peers: members.map(({ peerId, metadata }) => ({ peerId, metadata: JSON.parse(metadata) })) }
  })

  scope.post('/channels/:channel/publish', {
    schema: {
      tags,
      summary: 'Publish a message',
      params: ChannelParams,
      headers: IdempotencyHeaders,
      body: V1PublishBody,
      response: v1Answers(V1Published)
    }
  }, async function publishToChannel (request) {
    const { params: { channel }, body: { data, from, msgId } } = request
    const sender = senderOf(callerOf(request), from, peerTokens)
    return once(idempotency, request, async () => {
      const { members } = await presence.members(channelKey(parseChannel(channel, 'v1')))
      const text = payloadText(data, options.agentsWs.maxMessageSize)
      const { epoch, offset, duplicate } = await channels.publish(sender, { channel, data: text, msgId: messageIdOf(request, msgId) })
      return { channel, epoch, offset, subscribers: members.length, ...(duplicate && { duplicate: true as const }) }
    })
  })

  scope.get('/channels/:channel/history', {
    schema: {
      tags,
      summary: 'Get the stored messages of a channel',
      params: ChannelParams,
      querystring: V1HistoryQuery,
      response: v1Answers(V1History)
    }
  }, async function historyOfChannel (request): Promise<Static<typeof V1History>> {
    const { params: { channel }, query } = request
    const history = await channels.history(callerOf(request), { channel, since: positionOf(query), limit: query.limit })
    return JSON.parse(historyFrame(history, 'v1', undefined))
  })
}

/** `/v1/peers/*` and `/v1/request`. */
const peerRoutes: Routes = async function peerRoutes (scope, { messaging, peerTokens, idempotency, sockets }) {
  const { direct, requests } = messaging

  type Reply = Static<typeof V1Reply>

  async function ask (request: FastifyRequest, reply: FastifyReply, from: string | undefined, input: RequestInput): Promise<Reply> {
    const sender = senderOf(callerOf(request), from, peerTokens)
    assertMay(sender, 'send')
    return once(idempotency, request, async () => {
      const { from: responder, data } = await requests.requestUnchecked(sender.peerId, input, disconnectSignalOf(request, reply))
      return { from: responder, data: JSON.parse(data) }
    }, input.timeoutMs)
  }

  scope.delete('/peers/:peerId', {
    schema: { tags, summary: 'Close all connections of a peer', params: PeerParams, response: v1Answers(V1Disconnected) }
  }, async function disconnectPeer (request) {
    assertOperator(callerOf(request))
    const { peerId } = request.params
    return { peerId, closed: await sockets.disconnects.disconnect(peerId) }
  })

  scope.post('/peers/:peerId/send', {
    schema: {
      tags,
      summary: 'Send a message to a peer',
      params: PeerParams,
      headers: IdempotencyHeaders,
      body: V1SendBody,
      response: v1Answers(V1Sent)
    }
  }, async function sendToPeer (request) {
    const { params: { peerId: to }, body: { data, from, msgId, level } } = request
    const sender = senderOf(callerOf(request), from, peerTokens)
    return once(idempotency, request, async () => {
      const { offset, delivered, duplicate } = await direct.send(sender, { to, data, msgId: messageIdOf(request, msgId), level })
      return { offset, delivered, ...(duplicate && { duplicate: true as const }) }
    })
  })

  scope.post('/peers/:peerId/request', {
    schema: {
      tags,
      summary: 'Send a request to an agent and return its reply',
      params: PeerParams,
      headers: IdempotencyHeaders,
      body: V1RequestBody,
      response: v1Answers(V1Reply)
    }
  }, async function requestOfPeer (request, reply) {
    const { from, ...input } = request.body
    return ask(request, reply, from, { ...input, to: request.params.peerId })
  })

  scope.post('/request', {
    schema: {
      tags,
      summary: 'Send a request to the least loaded agent with a capability and return its reply',
      headers: IdempotencyHeaders,
      body: V1CapabilityBody,
      response: v1Answers(V1Reply)
    }
  }, async function requestOfCapability (request, reply) {
    const { from, ...input } = request.body
    return ask(request, reply, from, input)
  })
}

/** `/v1/tokens` and `/v1/usage`. */
const accountRoutes: Routes = async function accountRoutes (scope, { options, peerTokens, idempotency, sockets, now }) {
  const startedAt = Math.floor(now() / 1000)

  scope.post('/tokens', {
    schema: {
      tags,
      summary: "Issue a token for a peer, with some of the caller's rights",
      headers: IdempotencyHeaders,
      body: PeerTokenBody,
      response: v1Answers(PeerTokenAnswer)
    }
  }, async function mintPeerToken (request) {
    const caller = callerOf(request)
    assertParticipates(caller)
    return once(idempotency, request, async () => {
      const { token, expiresAt } = peerTokens.mint(caller, request.body)
      return { token, expiresAt }
    })
  })

  scope.get('/usage', {
    schema: { tags, summary: 'Get the usage of `/v1`', response: v1Answers(V1Usage) }
  }, async function getUsage (request) {
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
}

/** `/v1/*`: messaging over HTTP, for back ends without a socket. */
const v1Routes: Routes = async function v1Routes (scope, services) {
  const refuseOtherMethods = collectMethods(scope)
  warnOfShortParameters(scope)
  scope.decorateRequest('agentRegistryCaller', null)
  scope.setErrorHandler(createErrorHandler(services.onForbidden))
  scope.addHook('preValidation', identifyCaller(scope, services.secretKeys))
  await accountRoutes(scope, services)
  await channelRoutes(scope, services)
  await peerRoutes(scope, services)
  refuseOtherMethods()
}

export default fp(v1Routes, { name: 'agent-registry-v1-routes', encapsulate: true, dependencies: ['agent-registry-auth'] })
