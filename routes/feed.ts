import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { sendJson } from '../src/http/entity-tags.js'
import { guard, headerOf } from '../src/http/guard.js'
import type { Sockets } from '../plugins/sockets.js'
import type { Core } from '../src/core.js'
import { Cursor } from '../src/registry/feed/cursor.js'
import { answers as pollAnswers, events } from '../src/registry/feed/delta.js'
import { EventStream } from '../src/http/event-stream.js'
import { Place } from '../src/registry/feed/position.js'
import { Poll, taken } from '../src/http/long-poll.js'
import { jittered } from '../src/lib/jitter.js'
import { ChangesAnswer, ChangesQuery, EventsAnswer, EventsQuery } from '../src/protocol/schemas/feed.js'
import { answers, Problem } from '../src/protocol/schemas/rest.js'

const tags = ['agents']
const view = 'full'
/** A fleet of pollers that was answered in one instant does not come back in one. */
const waitJitter = 0.1

/** `/agents/changes` and `/agents/events`: what sockets `watch`, for those who have none. */
const feedRoutes: FastifyPluginAsyncTypebox<{ core: Core, sockets: Sockets }> = async function feedRoutes (scope, { core, sockets: { services } }) {
  const { registry, options } = core
  const { source, readers, visitors, admission } = services
  const reader = guard(core.authority, { takes: ['agent', 'user', 'admin'], level: 'user' })

  scope.get('/changes', {
    schema: { tags, summary: 'Changes since a revision; waits for one when asked to', querystring: ChangesQuery, response: answers(ChangesAnswer) },
    exposeHeadRoute: false,
    preValidation: reader
  }, async function getChanges (request, reply) {
    const { since, wait, limit, ...filter } = request.query
    reply.header('cache-control', 'no-store')
    if (since === undefined) return sendJson(reply, pollAnswers.changes([], registry.revision))
    const position = registry.positionOf(since)
    if (position === undefined) return sendJson(reply, pollAnswers.resync(registry.revision))
    const place = new Place({ source, scope: { view, filter }, position, limit })
    const text = taken(place) ?? (wait > 0 ? await waitFor(place, request, reply, wait * 1000) : pollAnswers.changes([], place.revision))
    return sendJson(reply, text)
  })

  function waitFor (place: Place, { agentRegistryPrincipal: principal, ip: address }: FastifyRequest, { raw }: FastifyReply, ms: number): Promise<string> {
    visitors.assertRoom(principal!, address)
    const poll = new Poll({ place, readers, visitors, principal: principal!, address, waitMs: jittered(ms, waitJitter) })
    raw.once('close', () => poll.cut())
    return poll.answer
  }

  scope.get('/events', {
    schema: { tags, summary: 'Changes as Server-Sent Events', querystring: EventsQuery, response: { 200: EventsAnswer, '4xx': Problem, '5xx': Problem } },
    exposeHeadRoute: false,
    onRequest: function admitStream (_request, _reply, done) {
      done(admission.objection('too-many-connections', 'Many streams are opened at this moment'))
    },
    preValidation: reader
  }, async function getEvents (request, reply) {
    const { since: from, snapshot, ...filter } = request.query
    const { agentRegistryPrincipal: principal, ip: address } = request
    visitors.assertRoom(principal!, address)
    const since = headerOf(request, 'last-event-id') || from
    const known = since === undefined ? registry.replica.revision : registry.positionOf(since)
    const startsAnew = known === undefined || (snapshot && since === undefined)
    const cursor = new Cursor({ source, scope: { view, filter }, encoding: events, position: known ?? 0 })
    const revision = startsAnew ? null : cursor.place.revision
    if (known === undefined) cursor.restart()
    else if (startsAnew) cursor.snapshot()
    const { keepAliveMs } = options.feed
    reply.headers({ 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache, no-transform', 'x-accel-buffering': 'no' })
    return reply.send(new EventStream({ cursor, revision, readers, visitors, principal: principal!, address, keepAliveMs }))
  })
}

export default feedRoutes
