import { isDeepStrictEqual } from 'node:util'
import type { TSchema } from '@sinclair/typebox'
import type { Dashboard } from '../dashboard/dashboard.js'
import { isObject } from '../lib/json.js'
import { OptionsSchema, type ResolvedOptions } from '../options.js'
import { protocol } from '../protocol/identity.js'
import type { AzureHealth, ConfigHealth, DetailedHealth, Health, RedisHealth } from '../protocol/schemas/health.js'
import { outageText, type Registry } from '../registry/registry.js'
import type { Search } from '../search/search.js'
import type { StorageKind } from '../storage/storage.js'

/** The services whose health is reported. */
export interface HealthServices {
  options: ResolvedOptions
  registry: Registry
  dashboard: Dashboard
  search: Search
  storageKind: StorageKind
}

/** Names of options that differ from their defaults, by topic. */
interface ChangedOptions {
  /** Options without which no client can authenticate. */
  required: string[]
  azure: string[]
  redis: string[]
  security: string[]
  agent: string[]
  service: string[]
}

const required = new Set(['jwt.secret', 'admin.password', 'agentKeys'])
const groups: Record<string, Exclude<keyof ChangedOptions, 'required'>> = {
  embed: 'azure',
  redis: 'redis',
  jwt: 'security',
  admin: 'security',
  attempts: 'security',
  addresses: 'security',
  authenticate: 'security',
  publicView: 'security',
  publicFields: 'security',
  metricsScrapeToken: 'security',
  allowedAgentTypes: 'agent',
  lease: 'agent',
  onRegister: 'agent'
}

/** Paths of the changed settings below `schema`. Groups are searched; all other values are single settings. */
function changedBelow (schema: TSchema, value: unknown, path: string[] = []): string[] {
  if (value === undefined) return []
  const isGroup = schema.properties !== undefined && schema.default !== undefined
  if (!isGroup && path.length > 0) return isDeepStrictEqual(value, schema.default) ? [] : [path.join('.')]
  if (!isObject(value)) return []
  return Object.entries<TSchema>(schema.properties).flatMap(([name, child]) => changedBelow(child, value[name], [...path, name]))
}

/** The names of the options that differ from their defaults, without their values. */
function changedOptions (options: ResolvedOptions): ChangedOptions {
  const found: ChangedOptions = { required: [], azure: [], redis: [], security: [], agent: [], service: [] }
  for (const name of changedBelow(OptionsSchema, options)) {
    const [head = ''] = name.split('.', 1)
    const group = required.has(name) ? 'required' : groups[head] ?? 'service'
    found[group].push(name)
  }
  return found
}

const service = 'ARCP Registry'

const described = () => ({ timestamp: new Date().toISOString(), version: protocol.version })

/** The known state of the components. */
function componentsOf ({ dashboard, registry, search, options }: HealthServices) {
  const { storage, ai_services: ai } = dashboard.health().components
  const { total_agents: total, ...counts } = registry.stats()
  const isFine = [storage, ai].every(({ status }) => status === 'healthy' || status === 'not_configured')
  return {
    status: isFine ? 'healthy' as const : 'degraded' as const,
    // This endpoint is public; the address of the store and its fault are for admins.
    reason: registry.outage && { reason: `${outageText(registry.outage)}; responses show the last known state` },
    storage,
    ai,
    isRedisConnected: storage.redis === 'connected',
    embeds: options.embed !== undefined,
    agents: { total_registered: total, ...counts, embeddings_stored: search.vectorCount }
  }
}

/** The first members of both responses. */
function headOf ({ status, reason }: Pick<ReturnType<typeof componentsOf>, 'status' | 'reason'>) {
  return { ...described(), status, ...reason, uptime: 'operational' as const, service }
}

/** The response of `GET /health`. */
export function health (services: HealthServices): Health {
  const { storage, ai, isRedisConnected, embeds, agents, ...overall } = componentsOf(services)
  return {
    ...headOf(overall),
    features: {
      vector_search: embeds,
      redis_storage: isRedisConnected,
      metrics_tracking: true,
      jwt_authentication: true,
      websocket_broadcasts: true
    },
    storage: { redis: storage.redis, backup_storage: 'available' },
    ai_services: { azure_openai: ai.azure_openai, embeddings: embeds },
    agents,
    performance: { redis_connected: isRedisConnected, ai_client_available: embeds }
  }
}

/** The response of `GET /health/detailed`. */
export function detailedHealth (services: HealthServices): DetailedHealth {
  const { storage, ai, isRedisConnected, embeds, agents, ...overall } = componentsOf(services)
  const redis = isRedisConnected ? 'connected' : 'disconnected'
  return {
    ...headOf(overall),
    components: {
      registry: { status: 'healthy', agents_total: agents.total_registered, agents_alive: agents.alive_agents },
      storage: { status: storage.status, redis },
      ai_services: { status: ai.status, azure_openai: ai.azure_openai }
    },
    detailed: {
      database: { status: storage.status, type: services.storageKind },
      storage: { redis, backup_storage: 'available' },
      ai_services: { azure_openai: ai.azure_openai, embeddings: embeds, vector_search: embeds },
      features: {
        agent_registration: true,
        heartbeat_monitoring: true,
        metrics_collection: true,
        websocket_broadcasts: true,
        jwt_authentication: true
      },
      agents,
      performance: { redis_connected: isRedisConnected, ai_client_available: embeds }
    }
  }
}

/** The response of `GET /health/config`: names of changed settings, without values. */
export function configHealth ({ options }: HealthServices): ConfigHealth {
  const { required, ...optional } = changedOptions(options)
  return { ...described(), status: 'ok', required_config: required, optional_config: optional }
}

const redisStates = {
  connected: { status: 'healthy', redis: 'connected' },
  disconnected: { status: 'unavailable', redis: 'disconnected' },
  not_configured: { status: 'unavailable', redis: 'disconnected' },
  error: { status: 'error', redis: 'unknown' }
} as const

/** The response of `GET /health/redis`. */
export function redisHealth ({ dashboard }: HealthServices): RedisHealth {
  return { ...described(), ...redisStates[dashboard.health().components.storage.redis] }
}

/** The response of `GET /health/azure`, for any embedding service. */
export function azureHealth ({ options }: HealthServices): AzureHealth {
  const status = options.embed ? 'available' : 'not_configured'
  const reason = options.embed ? 'The host embeds texts' : 'No embedding hook is configured'
  return { ...described(), status, details: { status, reason } }
}
