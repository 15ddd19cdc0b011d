import { configured } from './config-report.js'
import type { Core } from '../core.js'
import { protocol } from '../protocol/identity.js'
import { outageText } from '../registry/registry.js'
import type { AzureHealth, ConfigHealth, DetailedHealth, Health, RedisHealth } from '../protocol/schemas/health.js'

const service = 'ARCP Registry'

const described = () => ({ timestamp: new Date().toISOString(), version: protocol.version })

/** What is known of the parts that the registry works with. */
function componentsOf ({ dashboard, registry, search, options }: Core) {
  const { storage, ai_services: ai } = dashboard.health().components
  const { total_agents: total, ...counts } = registry.stats()
  const isFine = [storage, ai].every(({ status }) => status === 'healthy' || status === 'not_configured')
  return {
    status: isFine ? 'healthy' as const : 'degraded' as const,
    // Anybody may read this: where the store is, and what is wrong with it, is for admins.
    reason: registry.outage && { reason: `${outageText(registry.outage)}; what is read is as of then` },
    storage,
    ai,
    isRedisConnected: storage.redis === 'connected',
    embeds: options.embed !== undefined,
    agents: { total_registered: total, ...counts, embeddings_stored: search.vectorCount }
  }
}

/** What both answers begin with. */
const headOf = ({ status, reason }: Pick<ReturnType<typeof componentsOf>, 'status' | 'reason'>) =>
  ({ ...described(), status, ...reason, uptime: 'operational' as const, service })

/** The answer to `GET /health`. */
export function health (core: Core): Health {
  const { storage, ai, isRedisConnected, embeds, agents, ...overall } = componentsOf(core)
  return {
    ...headOf(overall),
    features: { vector_search: embeds, redis_storage: isRedisConnected, metrics_tracking: true, jwt_authentication: true, websocket_broadcasts: true },
    storage: { redis: storage.redis, backup_storage: 'available' },
    ai_services: { azure_openai: ai.azure_openai, embeddings: embeds },
    agents,
    performance: { redis_connected: isRedisConnected, ai_client_available: embeds }
  }
}

/** The answer to `GET /health/detailed`. */
export function detailedHealth (core: Core): DetailedHealth {
  const { storage, ai, isRedisConnected, embeds, agents, ...overall } = componentsOf(core)
  const redis = isRedisConnected ? 'connected' : 'disconnected'
  return {
    ...headOf(overall),
    components: {
      registry: { status: 'healthy', agents_total: agents.total_registered, agents_alive: agents.alive_agents },
      storage: { status: storage.status, redis },
      ai_services: { status: ai.status, azure_openai: ai.azure_openai }
    },
    detailed: {
      database: { status: storage.status, type: core.storage.kind },
      storage: { redis, backup_storage: 'available' },
      ai_services: { azure_openai: ai.azure_openai, embeddings: embeds, vector_search: embeds },
      features: { agent_registration: true, heartbeat_monitoring: true, metrics_collection: true, websocket_broadcasts: true, jwt_authentication: true },
      agents,
      performance: { redis_connected: isRedisConnected, ai_client_available: embeds }
    }
  }
}

/** The answer to `GET /health/config`: names of what is set, never values. */
export function configHealth ({ options }: Core): ConfigHealth {
  const { required, ...optional } = configured(options)
  return { ...described(), status: 'ok', required_config: required, optional_config: optional }
}

const redisStates = {
  connected: { status: 'healthy', redis: 'connected' },
  disconnected: { status: 'unavailable', redis: 'disconnected' },
  not_configured: { status: 'unavailable', redis: 'disconnected' },
  error: { status: 'error', redis: 'unknown' }
} as const

/** The answer to `GET /health/redis`. */
export function redisHealth ({ dashboard }: Core): RedisHealth {
  return { ...described(), ...redisStates[dashboard.health().components.storage.redis] }
}

/** The answer to `GET /health/azure`, which stands for whatever makes vectors. */
export function azureHealth ({ options }: Core): AzureHealth {
  const status = options.embed ? 'available' : 'not_configured'
  const reason = options.embed ? 'The host makes vectors' : 'Nothing that makes vectors is configured'
  return { ...described(), status, details: { status, reason } }
}
