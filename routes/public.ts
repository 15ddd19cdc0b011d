import { randomUUID } from 'node:crypto'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type, type Static } from '@sinclair/typebox'
import fastJson from 'fast-json-stringify'
import { problem } from '../src/errors.js'
import { isUnchanged, listTag, recordTag, sendJson } from '../src/http/entity-tags.js'
import { addressKey } from '../src/lib/address.js'
import type { ResolvedOptions } from '../src/options.js'
import { implementation, protocol } from '../src/protocol/identity.js'
import { AgentInfo } from '../src/protocol/schemas/agent.js'
import { AgentTypes, answers, DiscoverQuery, IdParams, PublicStats } from '../src/protocol/schemas/rest.js'
import { ConnectionRequest, ConnectionResponse, SearchBody, SearchResponse } from '../src/protocol/schemas/search.js'
import { perMillisecondCache, slice, VersionedCache } from '../src/registry/query.js'
import type { Registry } from '../src/registry/registry.js'
import { isPublic, type ReplicaEntry } from '../src/registry/replica.js'
import type { Search } from '../src/search/search.js'
import { unreachable, type Webhooks } from '../src/webhooks/webhooks.js'

interface PublicRoutesOptions { options: ResolvedOptions, registry: Registry, search: Search, webhooks: Webhooks }

const tags = ['public']

const Info = Type.Object({
  service: Type.String(),
  version: Type.String(),
  public_api: Type.Object({
    available: Type.Boolean(),
    endpoints: Type.Record(Type.String(), Type.String()),
    features: Type.Array(Type.String())
  }),
  capabilities: Type.Record(Type.String(), Type.Boolean()),
  limits: Type.Object({ discover_max_limit: Type.Integer(), search_max_limit: Type.Integer(), rate_limiting: Type.String() }),
  documentation: Type.String(),
  support: Type.String(),
  implementation: Type.Object({ name: Type.String(), version: Type.String() })
})

/** The constant response of `GET /public/info`. */
function infoOf ({ prefix, publicWs, search, embed }: ResolvedOptions): Static<typeof Info> {
  return {
    service: protocol.title,
    version: protocol.version,
    public_api: {
      available: true,
      endpoints: {
        discover: `${prefix}/public/discover`,
        search: `${prefix}/public/search`,
        agent_details: `${prefix}/public/agent/{agent_id}`,
        connect: `${prefix}/public/connect/{agent_id}`,
        stats: `${prefix}/public/stats`,
        websocket: `${prefix}${publicWs.path}`
      },
      features: ['agent_updates', 'public_stats', 'discovery_events', 'paginated_discovery']
    },
    capabilities: {
      search: search.enabled,
      vector_search: embed !== undefined,
      connection_facilitation: true,
      real_time_updates: true,
      agent_filtering: true,
      pagination: true,
      websocket_pagination: true
    },
    limits: { discover_max_limit: 100, search_max_limit: 50, rate_limiting: 'Applied per IP address' },
    documentation: `${prefix}/docs`,
    support: `${prefix}/docs`,
    implementation
  }
}

function statsOf (registry: Registry, { search, embed }: ResolvedOptions): Static<typeof PublicStats> {
  const { alive_agents: alive, total_agents: total, agent_types: types } = registry.stats()
  const available = Object.keys(types)
  return {
    alive_agents: alive,
    total_agents: total,
    agent_types: available.length,
    system_status: 'operational',
    last_updated: new Date().toISOString(),
    features: { search: search.enabled, semantic_search: embed !== undefined, real_time_discovery: true, connection_facilitation: true },
    ...(available.length > 0 && { available_types: available })
  }
}

/**
 * The entry of an agent that discovery shows, and its public JSON text.
 * @throws agent-not-found, agent-not-available
 */
function publicEntryOf (registry: Registry, id: string): { entry: ReplicaEntry, text: string } {
  const entry = registry.replica.get(id)
  const text = entry && entry.record.publicBody !== null ? entry.rendering.public() : null
  if (!entry || text === null) throw problem('agent-not-found', `Agent ${id} not found`)
  if (!isPublic(entry.record)) throw problem('agent-not-available', `Agent ${id} is not available`)
  return { entry, text }
}

/** `/public/*`: endpoints without authentication. */
const publicRoutes: FastifyPluginAsyncTypebox<PublicRoutesOptions> = async function publicRoutes (scope, services) {
  const { registry, options, search, webhooks } = services
  const pages = new VersionedCache(registry.replica)
  const stringifyStats = fastJson({ ...PublicStats })
  const statsText = perMillisecondCache(registry.replica, () => stringifyStats(statsOf(registry, options)))
  const info = infoOf(options)

  scope.get('/discover', {
    schema: { tags, summary: 'List alive agents', querystring: DiscoverQuery, response: answers(Type.Array(AgentInfo)) }
  }, async function discover (request, reply) {
    const { limit, offset, ...filter } = request.query
    if (isUnchanged(request, reply, listTag(registry, request))) return reply
    return sendJson(reply, pages.get(request.url, () => {
      const entries = slice(registry.replica, 'public', filter, { offset, limit })
      return `[${entries.map(({ rendering }) => rendering.public()).join()}]`
    }))
  })

  scope.get('/agent/:id', {
    schema: { tags, summary: 'Get an alive agent', params: IdParams, response: answers(AgentInfo) }
  }, async function getPublicAgent (request, reply) {
    const { entry, text } = publicEntryOf(registry, request.params.id)
    if (isUnchanged(request, reply, recordTag(registry, entry.record))) return reply
    return sendJson(reply, text)
  })

  scope.get('/stats', {
    schema: { tags, summary: 'Get the number of agents', response: answers(PublicStats) }
  }, async function getPublicStats (_request, reply) {
    return sendJson(reply, statsText())
  })

  scope.get('/agent_types', {
    schema: { tags, summary: 'List the types that may register', response: answers(AgentTypes) }
  }, async function getAgentTypes () {
    return { allowed_agent_types: options.allowedAgentTypes }
  })

  scope.get('/info', { schema: { tags, summary: 'Describe the public API', response: answers(Info) } }, async function getInfo () {
    return info
  })

  if (options.search.enabled) {
    scope.post('/search', {
      schema: { tags, summary: 'Find agents that match a query, best first', body: SearchBody, response: answers(SearchResponse) }
    }, async function searchPublic ({ body }) {
      return search.search(body)
    })
  }

  scope.post('/connect/:id', {
    schema: {
      tags,
      summary: 'Ask an agent to contact a user',
      params: IdParams,
      body: ConnectionRequest,
      response: answers(ConnectionResponse)
    }
  }, async function connect ({ params: { id }, body, ip }) {
    const { entry, text } = publicEntryOf(registry, id)
    const timestamp = new Date().toISOString()
    const status = await webhooks.deliver(entry.rendering.info().endpoint, '/connection/request', {
      user_id: body.user_id,
      user_endpoint: body.user_endpoint,
      user_display_name: body.display_name || 'Anonymous User',
      connection_type: 'external_app',
      user_info: body.additional_info,
      timestamp,
      request_source: 'arcp_public_api'
    }, { caller: addressKey(ip), target: id })
    if (status === 404) throw unreachable()
    const { name, agent_type: type, capabilities, requirements }: AgentInfo = JSON.parse(text)
    return {
      status: 'connection_requested' as const,
      message: `Connection request sent to ${name}`,
      next_steps: 'Agent will contact you directly with connection details',
      agent_info: { name, agent_type: type, capabilities, requirements },
      request_id: `pub_${randomUUID()}`,
      timestamp
    }
  })
}

export default publicRoutes
