import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import { protocol } from '../src/identity.js'
import type { Core } from '../src/core.js'
import type { Hub } from '../src/sockets/hub.js'

const Health = Type.Object({
  status: Type.Union([Type.Literal('healthy'), Type.Literal('degraded')]),
  timestamp: Type.String(),
  version: Type.String(),
  uptime: Type.Literal('operational'),
  service: Type.String(),
  features: Type.Record(Type.String(), Type.Boolean()),
  storage: Type.Object({ redis: Type.String(), backup_storage: Type.String() }),
  ai_services: Type.Object({ azure_openai: Type.String(), embeddings: Type.Boolean() }),
  agents: Type.Object({
    total_registered: Type.Integer(),
    alive_agents: Type.Integer(),
    dead_agents: Type.Integer(),
    agent_types: Type.Record(Type.String(), Type.Integer()),
    embeddings_stored: Type.Integer()
  }),
  performance: Type.Object({ redis_connected: Type.Boolean(), ai_client_available: Type.Boolean() })
})
const Probe = Type.Object({ status: Type.String() })

const schema = (summary: string, response: object) => ({ tags: ['service'], summary, response })

/** `/health` for people and existing clients, `/health/live` and `/health/ready` for orchestrators. */
export default async function healthRoutes (scope: FastifyInstance, { core, hub }: { core: Core, hub: Hub }) {
  const embeds = core.options.embed !== undefined

  scope.get('/health', { schema: schema('How the registry is', { 200: Health }) }, async function getHealth () {
    const { total_agents: total, ...counts } = core.registry.stats()
    return {
      status: 'healthy' as const,
      timestamp: new Date().toISOString(),
      version: protocol.version,
      uptime: 'operational' as const,
      service: 'ARCP Registry',
      features: { vector_search: embeds, redis_storage: false, metrics_tracking: true, jwt_authentication: true, websocket_broadcasts: true },
      storage: { redis: 'not_configured', backup_storage: 'available' },
      ai_services: { azure_openai: 'not_configured', embeddings: embeds },
      agents: { total_registered: total, ...counts, embeddings_stored: core.search.vectorCount },
      performance: { redis_connected: false, ai_client_available: embeds }
    }
  })

  scope.get('/health/live', { schema: schema('Whether the process answers', { 200: Probe }) }, async function getLive () {
    return { status: 'live' }
  })

  scope.get('/health/ready', { schema: schema('Whether to send traffic here', { 200: Probe, 503: Probe }) }, async function getReady (_request, reply) {
    if (!hub.isDraining) return { status: 'ready' }
    return reply.code(503).send({ status: 'draining' })
  })
}
