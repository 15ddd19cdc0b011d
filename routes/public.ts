import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type, type Static } from '@sinclair/typebox'
import fastJson, { type AnySchema } from 'fast-json-stringify'
import { isUnchanged, listTag, recordTag, sendJson } from '../src/http/entity-tags.js'
import { problem } from '../src/errors.js'
import type { Core } from '../src/core.js'
import { implementation, protocol } from '../src/protocol/identity.js'
import { perMillisecondCache, VersionedCache, slice } from '../src/registry/query.js'
import { isPublic } from '../src/registry/replica.js'
import { AgentInfo } from '../src/protocol/schemas/agent.js'
import { AgentTypes, answers, DiscoverQuery, IdParams, PublicStats } from '../src/protocol/schemas/rest.js'

const tags = ['public']
const limits = { discover_max_limit: 100, search_max_limit: 50, rate_limiting: 'Applied per IP address' }

const Info = Type.Object({
  service: Type.String(),
  version: Type.String(),
  public_api: Type.Object({ available: Type.Boolean(), endpoints: Type.Record(Type.String(), Type.String()), features: Type.Array(Type.String()) }),
  capabilities: Type.Record(Type.String(), Type.Boolean()),
  limits: Type.Object({ discover_max_limit: Type.Integer(), search_max_limit: Type.Integer(), rate_limiting: Type.String() }),
  documentation: Type.String(),
  support: Type.String(),
  implementation: Type.Object({ name: Type.String(), version: Type.String() })
})

/** `/public/*`: what anybody may read. */
const publicRoutes: FastifyPluginAsyncTypebox<{ core: Core }> = async function publicRoutes (scope, { core: { registry, options } }) {
  const embeds = options.embed !== undefined

  const pages = new VersionedCache(registry.replica)
  const stringifyStats = fastJson(PublicStats as AnySchema)
  const statsText = perMillisecondCache(registry.replica, () => stringifyStats(stats()))

  scope.get('/discover', {
    schema: { tags, summary: 'Agents that are alive', querystring: DiscoverQuery, response: answers(Type.Array(AgentInfo)) }
  }, async function discover (request, reply) {
    const { limit, offset, ...filter } = request.query
    if (isUnchanged(request, reply, listTag(registry, request))) return reply
    return sendJson(reply, pages.get(request.url, () => {
      const entries = slice(registry.replica, 'public', filter, { offset, limit })
      return `[${entries.map(({ rendering }) => rendering.public()).join()}]`
    }))
  })

  scope.get('/agent/:id', {
    schema: { tags, summary: 'An agent that is alive', params: IdParams, response: answers(AgentInfo) }
  }, async function getPublicAgent (request, reply) {
    const { id } = request.params
    const entry = registry.replica.get(id)
    if (!entry || entry.record.publicBody === null) throw problem('agent-not-found', `Agent ${id} not found`)
    if (!isPublic(entry.record)) throw problem('agent-not-available', `Agent ${id} is not available`)
    if (isUnchanged(request, reply, recordTag(registry, entry.record))) return reply
    return sendJson(reply, entry.rendering.public()!)
  })

  scope.get('/stats', {
    schema: { tags, summary: 'How many agents there are', response: answers(PublicStats) }
  }, async function getPublicStats (_request, reply) {
    return sendJson(reply, statsText())
  })

  function stats (): Static<typeof PublicStats> {
    const { alive_agents: alive, total_agents: total, agent_types: types } = registry.stats()
    const available = Object.keys(types)
    return {
      alive_agents: alive,
      total_agents: total,
      agent_types: available.length,
      system_status: 'operational' as const,
      last_updated: new Date().toISOString(),
      features: { search: options.search.enabled, semantic_search: embeds, real_time_discovery: true, connection_facilitation: true },
      ...(available.length > 0 && { available_types: available })
    }
  }

  scope.get('/agent_types', {
    schema: { tags, summary: 'Types that may register', response: answers(AgentTypes) }
  }, async function getAgentTypes () {
    return { allowed_agent_types: options.allowedAgentTypes }
  })

  const info = {
    service: protocol.title,
    version: protocol.version,
    public_api: {
      available: true,
      endpoints: {
        discover: `${options.prefix}/public/discover`,
        search: `${options.prefix}/public/search`,
        agent_details: `${options.prefix}/public/agent/{agent_id}`,
        connect: `${options.prefix}/public/connect/{agent_id}`,
        stats: `${options.prefix}/public/stats`,
        websocket: `${options.prefix}${options.publicWs.path}`
      },
      features: ['agent_updates', 'public_stats', 'discovery_events', 'paginated_discovery']
    },
    capabilities: { search: options.search.enabled, vector_search: embeds, connection_facilitation: true, real_time_updates: true, agent_filtering: true, pagination: true, websocket_pagination: true },
    limits,
    documentation: `${options.prefix}/docs`,
    support: `${options.prefix}/docs`,
    implementation
  }
  scope.get('/info', { schema: { tags, summary: 'What this tier offers', response: answers(Info) } }, async function getInfo () {
    return info
  })
}

export default publicRoutes
