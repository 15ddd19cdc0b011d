import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from '@sinclair/typebox'
import { expectedRevision, isUnchanged, listTag, recordTag, sendJson } from '../src/http/entity-tags.js'
import { assertSelf, guard, headerOf, signOf } from '../src/http/guard.js'
import { parseBody } from '../plugins/validation.js'
import { Admission } from '../src/limits/admission.js'
import { problem } from '../src/errors.js'
import type { Principal } from '../src/protocol/principal.js'
import type { Core } from '../src/core.js'
import { select } from '../src/registry/query.js'
import type { ReplicaEntry } from '../src/registry/replica.js'
import type { ParsedRegistration } from '../src/registry/registration.js'
import { AgentInfo, RegistrationBody, RegistrationResponse } from '../src/protocol/schemas/agent.js'
import { answers, HeartbeatAnswer, IdParams, ListQuery, RecordQuery, RegistryStats, StatusBody, Unregistered } from '../src/protocol/schemas/rest.js'
import type { ConnectionSlots } from '../src/limits/connection-slots.js'

const tags = ['agents']
const tierNames = ['public', 'agents', 'dashboard'] as const

/** `/agents/*`: agents come, show life, change and go; whoever has a token reads. */
const agentRoutes: FastifyPluginAsyncTypebox<{ core: Core, slots: ConnectionSlots }> = async function agentRoutes (scope, { core, slots }) {
  const { registry, enrollment, authority, search } = core
  const { registrationsPerSecond: perSecond, burst } = core.options.admission
  const admission = new Admission({ perSecond, burst, now: core.now })
  const embeds = core.options.embed !== undefined
  const usesRedis = core.storage.kind === 'redis'
  const sockets = () => tierNames.reduce((sum, tier) => sum + slots.countOf(tier), 0)
  const agent = guard(authority, { takes: ['agent', 'admin'], level: 'agent' })
  const admin = guard(authority, { takes: ['admin'], level: 'admin' })

  function entryOf (id: string): ReplicaEntry {
    const entry = registry.replica.get(id)
    if (!entry) throw problem('agent-not-found', `Agent ${id} not found`)
    return entry
  }

  scope.post('/register', {
    schema: { tags, summary: 'Registers an agent, or a new instance of it', body: RegistrationBody, response: answers(RegistrationResponse) },
    preValidation: guard(authority, { takes: ['temp', 'agent', 'admin'], level: 'agent', for: 'register' }),
    validatorCompiler: parseBody(body => registry.parse(body)),
    // Before anything is read: it should cost little to send somebody away.
    onRequest: function admitRegistration (_request, _reply, done) {
      done(admission.rejection('rate-limit-exceeded', 'Many agents register at this moment'))
    },
    onResponse: async function countFailure ({ body }, { statusCode }) {
      if (statusCode >= 400) enrollment.reportFailure(body)
    }
  }, async function register ({ agentRegistryPrincipal, body, ip }) {
    return enrollment.register(body as unknown as ParsedRegistration, agentRegistryPrincipal, ip)
  })

  scope.get('', {
    schema: { tags, summary: 'All agents, or a page of them', querystring: ListQuery, response: answers(Type.Array(AgentInfo)) },
    preValidation: agent
  }, async function listAgents (request, reply) {
    const { limit, cursor, include_metrics: withMetrics, ...filter } = request.query
    if (isUnchanged(request, reply, listTag(registry, request))) return reply
    let entries = [...select(registry.replica, 'full', filter)]
    if (limit !== undefined || cursor !== undefined) {
      reply.header('x-total-count', entries.length)
      const after = Number(cursor ?? 0)
      const rest = entries.filter(({ record }) => record.created > after)
      entries = rest.sort((a, b) => a.record.created - b.record.created).slice(0, limit ?? 100)
      if (entries.length < rest.length) reply.header('link', `<${nextPage(request.url, entries.at(-1)!)}>; rel="next"`)
    }
    return sendJson(reply, `[${entries.map(({ rendering }) => rendering.full(withMetrics)).join()}]`)
  })

  scope.get('/stats', {
    schema: { tags, summary: 'Numbers of the registry', response: answers(RegistryStats) }, preValidation: admin
  }, async function getStats () {
    return {
      registry_statistics: { ...registry.stats(), embeddings_available: search.vectorCount, redis_connected: usesRedis && registry.outage === null, ai_client_available: embeds },
      features: { vector_search_enabled: embeds, redis_storage_enabled: usesRedis, metrics_tracking_enabled: true, websocket_broadcasts_enabled: true },
      performance: { active_websocket_connections: sockets(), vector_embeddings_stored: search.vectorCount }
    }
  })

  scope.get('/:id', {
    schema: { tags, summary: 'An agent', params: IdParams, querystring: RecordQuery, response: answers(AgentInfo) }, preValidation: agent
  }, async function getAgent (request, reply) {
    const { record, rendering } = entryOf(request.params.id)
    if (isUnchanged(request, reply, recordTag(registry, record))) return reply
    return sendJson(reply, rendering.full(request.query.include_metrics))
  })

  scope.patch('/:id', {
    schema: { tags, summary: 'Changes a registration (JSON Merge Patch, RFC 7396)', params: IdParams, body: Type.Partial(Type.Omit(RegistrationBody, ['agent_id', 'public_key', 'owner'])), response: answers(AgentInfo) },
    preValidation: agent,
    // What may stand in a patch is known only once it is merged: the registry checks the result.
    validatorCompiler: () => () => true
  }, async function patchAgent (request, reply) {
    const { id } = request.params
    assertSelf(request.agentRegistryPrincipal!, id)
    await enrollment.patch(id, request.body, expectedRevision(registry, request, entryOf(id).record.revision))
    const { record, rendering } = entryOf(id)
    return sendJson(reply.header('etag', recordTag(registry, record)), rendering.full())
  })

  scope.delete('/:id', {
    schema: { tags, summary: 'Unregisters an agent', params: IdParams, response: answers(Unregistered) },
    preValidation: guard(authority, { takes: ['temp', 'agent', 'admin'], level: 'agent', for: 'unregister' })
  }, async function unregister (request) {
    const { id } = request.params
    const principal = request.agentRegistryPrincipal!
    assertSelf(principal, id)
    if (principal.role === 'admin') await authority.pins.require(principal, headerOf(request, 'x-session-pin'), request.ip)
    await remove(id, principal)
    const by = principal.role === 'admin' ? `admin (${principal.subject})` : 'agent (self)'
    return { status: 'success' as const, message: `Agent ${id} unregistered successfully`, unregistered_by: by }
  })

  function remove (id: string, principal: Principal): Promise<void> {
    if (principal.type === 'temp') return enrollment.evictByKey(id, principal)
    return principal.type === 'agent' ? enrollment.unregister(signOf(id, principal)) : enrollment.evict(id)
  }

  scope.post('/:id/heartbeat', {
    schema: { tags, summary: 'A sign of life', params: IdParams, response: answers(HeartbeatAnswer) },
    preValidation: guard(authority, { takes: ['agent', 'admin'], level: 'agent', staleAllowed: true })
  }, async function heartbeat ({ agentRegistryPrincipal, params: { id } }) {
    assertSelf(agentRegistryPrincipal!, id)
    const { lastSeen } = await registry.heartbeat(signOf(id, agentRegistryPrincipal!))
    return { agent_id: id, status: 'success' as const, last_seen: new Date(lastSeen).toISOString(), metrics: null }
  })

  scope.post('/:id/status', {
    schema: { tags, summary: 'Drains an agent, takes it into maintenance, or back', params: IdParams, body: StatusBody, response: answers(AgentInfo) },
    preValidation: agent
  }, async function setStatus ({ agentRegistryPrincipal, params: { id }, body }, reply) {
    assertSelf(agentRegistryPrincipal!, id)
    await registry.setState({ ...signOf(id, agentRegistryPrincipal!), state: body.status, reason: 'requested' })
    return sendJson(reply, entryOf(id).rendering.full())
  })
}

/** The URL of this request with the cursor of the page that follows `last`. */
function nextPage (url: string, last: ReplicaEntry): string {
  const [path, query = ''] = url.split('?', 2)
  const params = new URLSearchParams(query)
  params.set('cursor', String(last.record.created))
  return `${path}?${params}`
}

export default agentRoutes
