import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from '@sinclair/typebox'
import fp from 'fastify-plugin'
import { assertSelf, heartbeatOf, principalOf } from '../plugins/auth.js'
import { parseBody } from '../plugins/validation.js'
import type { Authority } from '../src/auth/authority.js'
import { problem } from '../src/errors.js'
import { expectedRevision, isUnchanged, listTag, recordTag, sendJson } from '../src/http/entity-tags.js'
import { headerOf } from '../src/http/requests.js'
import type { Clock } from '../src/lib/clock.js'
import { Admission } from '../src/limits/admission.js'
import type { ConnectionSlots } from '../src/limits/connection-slots.js'
import type { ResolvedOptions } from '../src/options.js'
import type { Principal } from '../src/protocol/principal.js'
import { AgentInfo, RegistrationBody, RegistrationResponse } from '../src/protocol/schemas/agent.js'
import {
  answers, HeartbeatAnswer, IdParams, ListQuery, NotifyAnswer, RecordQuery, RegistryStats, StatusBody, Unregistered
} from '../src/protocol/schemas/rest.js'
import { NotifyRequest, SearchBody, SearchQuery, SearchResponse } from '../src/protocol/schemas/search.js'
import type { Enrollment } from '../src/registry/enrollment.js'
import { select } from '../src/registry/query.js'
import type { ParsedRegistration } from '../src/registry/registration.js'
import type { Registry } from '../src/registry/registry.js'
import type { ReplicaEntry } from '../src/registry/replica.js'
import type { Search } from '../src/search/search.js'
import type { StorageKind } from '../src/storage/storage.js'
import type { Webhooks } from '../src/webhooks/webhooks.js'

interface AgentRoutesOptions {
  options: ResolvedOptions
  registry: Registry
  enrollment: Enrollment
  authority: Authority
  search: Search
  webhooks: Webhooks
  slots: ConnectionSlots
  storageKind: StorageKind
  now: Clock
}

type Routes = FastifyPluginAsyncTypebox<AgentRoutesOptions>

const tags = ['agents']
const defaultPageSize = 100
/** Default of `GET /agents/search`, which ARCP clients expect. */
const queryTopK = 3
/** The tiers that ARCP clients know. */
const countedTiers = ['public', 'agents', 'dashboard'] as const

const Registration = Type.Unsafe<ParsedRegistration>(RegistrationBody)
const Patch = Type.Partial(Type.Omit(RegistrationBody, ['agent_id', 'public_key', 'owner']))

/** The URL of this request with the cursor of the page after `last`. */
function nextPage (url: string, last: ReplicaEntry): string {
  const [path = '', query = ''] = url.split('?', 2)
  const params = new URLSearchParams(query)
  params.set('cursor', String(last.record.created))
  return `${path}?${params}`
}

function entryOf (registry: Registry, id: string): ReplicaEntry {
  const entry = registry.replica.get(id)
  if (!entry) throw problem('agent-not-found', `Agent ${id} not found`)
  return entry
}

/** Registers and unregisters agents. */
const enrollmentRoutes: Routes = async function enrollmentRoutes (scope, { options, registry, enrollment, authority, now }) {
  const { registrationsPerSecond: perSecond, burst } = options.admission
  const admission = new Admission({ perSecond, burst, now })

  scope.post('/register', {
    schema: { tags, summary: 'Register an agent, or a new instance of it', body: Registration, response: answers(RegistrationResponse) },
    preValidation: scope.agentRegistryGuard({ takes: ['temp', 'agent', 'admin'], level: 'agent', for: 'register' }),
    validatorCompiler: parseBody(body => registry.parse(body)),
    // Runs before the body is read, so that a refusal costs little.
    onRequest: function admitRegistration (_request, _reply, done) {
      done(admission.rejection('rate-limit-exceeded', 'Registration rate limit reached'))
    },
    onResponse: async function countFailure ({ body }, { statusCode }) {
      if (statusCode >= 400) enrollment.reportFailure(body)
    }
  }, async function register ({ agentRegistryPrincipal, body, ip }) {
    return enrollment.register(body, agentRegistryPrincipal, ip)
  })

  scope.delete('/:id', {
    schema: { tags, summary: 'Unregister an agent', params: IdParams, response: answers(Unregistered) },
    preValidation: scope.agentRegistryGuard({ takes: ['temp', 'agent', 'admin'], level: 'agent', for: 'unregister' })
  }, async function unregister (request) {
    const { id } = request.params
    const principal = assertSelf(request, id)
    if (principal.role === 'admin') await authority.pins.require(principal, headerOf(request, 'x-session-pin'), request.ip)
    await remove(id, principal)
    const by = principal.role === 'admin' ? `admin (${principal.subject})` : 'agent (self)'
    return { status: 'success' as const, message: `Agent ${id} unregistered successfully`, unregistered_by: by }
  })

  function remove (id: string, principal: Principal): Promise<void> {
    if (principal.type === 'temp') return enrollment.evictByKey(id, principal)
    return principal.type === 'agent' ? enrollment.unregister(heartbeatOf(id, principal)) : enrollment.evict(id)
  }
}

/** Reads of records and statistics. */
const readRoutes: Routes = async function readRoutes (scope, { options, registry, search, slots, storageKind }) {
  const requireAgent = scope.agentRegistryGuard({ takes: ['agent', 'admin'], level: 'agent' })
  const requireAdmin = scope.agentRegistryGuard({ takes: ['admin'], level: 'admin' })
  const canEmbed = options.embed !== undefined
  const usesRedis = storageKind === 'redis'

  scope.get('', {
    schema: { tags, summary: 'List all agents, or one page of them', querystring: ListQuery, response: answers(Type.Array(AgentInfo)) },
    preValidation: requireAgent
  }, async function listAgents (request, reply) {
    const { limit, cursor, include_metrics: withMetrics, ...filter } = request.query
    if (isUnchanged(request, reply, listTag(registry, request))) return reply
    let entries = [...select(registry.replica, 'full', filter)]
    if (limit !== undefined || cursor !== undefined) {
      reply.header('x-total-count', entries.length)
      const after = Number(cursor ?? 0)
      const rest = entries.filter(({ record }) => record.created > after).sort((a, b) => a.record.created - b.record.created)
      entries = rest.slice(0, limit ?? defaultPageSize)
      const last = entries.at(-1)
      if (last && entries.length < rest.length) reply.header('link', `<${nextPage(request.url, last)}>; rel="next"`)
    }
    return sendJson(reply, `[${entries.map(({ rendering }) => rendering.full(withMetrics)).join()}]`)
  })

  scope.get('/stats', {
    schema: { tags, summary: 'Get statistics of the registry', response: answers(RegistryStats) }, preValidation: requireAdmin
  }, async function getStats () {
    const sockets = countedTiers.reduce((sum, tier) => sum + slots.countOf(tier), 0)
    return {
      registry_statistics: {
        ...registry.stats(),
        embeddings_available: search.vectorCount,
        redis_connected: usesRedis && registry.outage === null,
        ai_client_available: canEmbed
      },
      features: {
        vector_search_enabled: canEmbed,
        redis_storage_enabled: usesRedis,
        metrics_tracking_enabled: true,
        websocket_broadcasts_enabled: true
      },
      performance: { active_websocket_connections: sockets, vector_embeddings_stored: search.vectorCount }
    }
  })

  scope.get('/:id', {
    schema: { tags, summary: 'Get an agent', params: IdParams, querystring: RecordQuery, response: answers(AgentInfo) },
    preValidation: requireAgent
  }, async function getAgent (request, reply) {
    const { record, rendering } = entryOf(registry, request.params.id)
    if (isUnchanged(request, reply, recordTag(registry, record))) return reply
    return sendJson(reply, rendering.full(request.query.include_metrics))
  })
}

/** Search over the agents that discovery shows. */
const searchRoutes: Routes = async function searchRoutes (scope, { search }) {
  const requireAgent = scope.agentRegistryGuard({ takes: ['agent', 'admin'], level: 'agent' })

  scope.post('/search', {
    schema: { tags, summary: 'Find agents that match a query, best first', body: SearchBody, response: answers(SearchResponse) },
    preValidation: requireAgent
  }, async function searchAgents ({ body }) {
    return search.search(body)
  })

  scope.get('/search', {
    schema: { tags, summary: 'Find agents by a query string', querystring: SearchQuery, response: answers(SearchResponse) },
    preValidation: requireAgent
  }, async function searchAgentsByQuery ({ query }) {
    return search.search({ ...query, top_k: query.top_k ?? queryTopK })
  })
}

/** Changes of a registered agent, and messages to it. */
const changeRoutes: Routes = async function changeRoutes (scope, { registry, enrollment, webhooks }) {
  const requireAgent = scope.agentRegistryGuard({ takes: ['agent', 'admin'], level: 'agent' })

  scope.patch('/:id', {
    schema: {
      tags,
      summary: 'Change a registration (JSON Merge Patch, RFC 7396)',
      params: IdParams,
      body: Patch,
      response: answers(AgentInfo)
    },
    preValidation: requireAgent,
    // The registry validates the merged registration, since a patch alone cannot be validated.
    validatorCompiler: () => () => true
  }, async function patchAgent (request, reply) {
    const { id } = request.params
    assertSelf(request, id)
    await enrollment.patch(id, request.body, expectedRevision(registry, request, entryOf(registry, id).record.revision))
    const { record, rendering } = entryOf(registry, id)
    return sendJson(reply.header('etag', recordTag(registry, record)), rendering.full())
  })

  scope.post('/:id/heartbeat', {
    schema: { tags, summary: 'Renew the lease of an agent', params: IdParams, response: answers(HeartbeatAnswer) },
    preValidation: scope.agentRegistryGuard({ takes: ['agent', 'admin'], level: 'agent', staleAllowed: true })
  }, async function heartbeat (request) {
    const { id } = request.params
    const { lastSeen } = await registry.heartbeat(heartbeatOf(id, assertSelf(request, id)))
    return { agent_id: id, status: 'success' as const, last_seen: new Date(lastSeen).toISOString(), metrics: null }
  })

  scope.post('/:id/status', {
    schema: {
      tags,
      summary: 'Drain an agent, put it into maintenance, or return it to service',
      params: IdParams,
      body: StatusBody,
      response: answers(AgentInfo)
    },
    preValidation: requireAgent
  }, async function setStatus (request, reply) {
    const { params: { id }, body } = request
    await registry.setState({ ...heartbeatOf(id, assertSelf(request, id)), state: body.status, reason: 'requested' })
    return sendJson(reply, entryOf(registry, id).rendering.full())
  })

  scope.post('/:id/connection/notify', {
    schema: {
      tags,
      summary: 'Send the endpoint of an agent to another agent',
      params: IdParams,
      body: NotifyRequest,
      response: answers(NotifyAnswer)
    },
    preValidation: requireAgent
  }, async function notify (request) {
    const { params: { id }, body: { agent_id: from, agent_endpoint: at, agent_info: info } } = request
    assertSelf(request, from)
    const { endpoint } = entryOf(registry, id).rendering.info()
    const notification = { agent_id: from, agent_endpoint: at, agent_info: info }
    const parties = { caller: principalOf(request).subject, target: id }
    const status = await webhooks.deliver(endpoint, '/connection/notify', notification, parties)
    if (status === 404) throw problem('not-found', 'The agent does not accept notifications')
    return {
      status: 'notified' as const,
      message: 'Agent notified successfully',
      agent_endpoint: endpoint,
      next_step: 'The agent may contact you at the endpoint that you gave'
    }
  })
}

/** `/agents/*`, without the feed and the metrics of agents. */
const agentRoutes: Routes = async function agentRoutes (scope, services) {
  await enrollmentRoutes(scope, services)
  if (services.options.search.enabled) await searchRoutes(scope, services)
  await readRoutes(scope, services)
  await changeRoutes(scope, services)
}

export default fp(agentRoutes, { name: 'agent-registry-agent-routes', encapsulate: true, dependencies: ['agent-registry-auth'] })
