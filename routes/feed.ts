import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply } from 'fastify'
import fp from 'fastify-plugin'
import { principalOf } from '../plugins/auth.js'
import type { Principal } from '../src/protocol/principal.js'
import type { ResolvedOptions } from '../src/options.js'
import type { Registry } from '../src/registry/registry.js'
import { sendJson } from '../src/http/entity-tags.js'
import { EventStream, eventsEncoding } from '../src/http/event-stream.js'
import { headerOf } from '../src/http/requests.js'
import { changesEncoding, LongPoll, readChanges } from '../src/http/long-poll.js'
import type { Admission } from '../src/limits/admission.js'
import type { LongRequests } from '../src/limits/long-requests.js'
import { jittered } from '../src/lib/jitter.js'
import type { Feed } from '../src/registry/feed/change-log.js'
import type { FeedSubscribers } from '../src/registry/feed/subscribers.js'
import { Cursor, FeedPosition } from '../src/registry/feed/cursor.js'
import { answers, ChangesAnswer, ChangesQuery, EventsAnswer, EventsQuery, Problem } from '../src/protocol/schemas/rest.js'

const tags = ['agents']
const view = 'full'
/** Spreads the requests of clients whose polls ended in the same instant. */
const waitJitter = 0.1

interface FeedRoutesOptions {
  options: ResolvedOptions
  registry: Registry
  feed: Feed
  subscribers: FeedSubscribers
  longRequests: LongRequests
  admission: Admission
}

/** `/agents/changes` and `/agents/events`: the feed over HTTP, by long polling and as Server-Sent Events. */
const feedRoutes: FastifyPluginAsyncTypebox<FeedRoutesOptions> = async function feedRoutes (scope, services) {
  const { options, registry, feed, subscribers, longRequests, admission } = services
  const requireReader = scope.agentRegistryGuard({ takes: ['agent', 'user', 'admin'], level: 'user' })

  scope.get('/changes', {
    schema: {
      tags,
      summary: 'Get the changes since a revision, or wait for one',
      querystring: ChangesQuery,
      response: answers(ChangesAnswer)
    },
    exposeHeadRoute: false,
    preValidation: requireReader
  }, async function getChanges (request, reply) {
    const { query: { since, wait, limit, ...filter }, ip: address } = request
    const principal = principalOf(request)
    reply.header('cache-control', 'no-store')
    if (since === undefined) return sendJson(reply, changesEncoding.changes([], registry.revision))
    const n = registry.positionOf(since)
    if (n === undefined) return sendJson(reply, changesEncoding.resync(registry.revision))
    const position = new FeedPosition({ feed, scope: { view, filter }, position: n, limit })
    const available = readChanges(position)
    if (available !== null) return sendJson(reply, available)
    if (wait === 0) return sendJson(reply, changesEncoding.changes([], position.revision))
    return sendJson(reply, await waitForChanges({ position, principal, address, waitMs: jittered(wait * 1000, waitJitter) }, reply))
  })

  function waitForChanges (
    request: { position: FeedPosition, principal: Principal, address: string, waitMs: number },
    { raw }: FastifyReply
  ): Promise<string> {
    longRequests.assertRoom(request.principal, request.address)
    return new Promise((resolve, reject) => {
      const poll = new LongPoll({ ...request, subscribers, longRequests, resolve, reject })
      raw.once('close', () => poll.abort())
    })
  }

  scope.get('/events', {
    schema: {
      tags,
      summary: 'Stream the changes as Server-Sent Events',
      querystring: EventsQuery,
      response: { 200: EventsAnswer, '4xx': Problem, '5xx': Problem }
    },
    exposeHeadRoute: false,
    onRequest: function admitStream (_request, _reply, done) {
      done(admission.rejection('too-many-connections', 'Stream rate limit reached'))
    },
    preValidation: requireReader
  }, async function getEvents (request, reply) {
    const { since: from, snapshot, ...filter } = request.query
    const { ip: address } = request
    const principal = principalOf(request)
    longRequests.assertRoom(principal, address)
    const since = headerOf(request, 'last-event-id') || from
    const position = since === undefined ? registry.replica.revision : registry.positionOf(since)
    const startsWithSnapshot = position === undefined || (snapshot && since === undefined)
    const cursor = new Cursor({ feed, scope: { view, filter }, encoding: eventsEncoding, position: position ?? 0 })
    const revision = startsWithSnapshot ? null : cursor.position.revision
    if (position === undefined) cursor.restart()
    else if (startsWithSnapshot) cursor.snapshot()
    reply.headers({
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no'
    })
    const { keepAliveMs } = options.feed
    return reply.send(new EventStream({ cursor, revision, subscribers, longRequests, principal, address, keepAliveMs }))
  })
}

export default fp(feedRoutes, { name: 'agent-registry-feed-routes', encapsulate: true, dependencies: ['agent-registry-auth'] })
