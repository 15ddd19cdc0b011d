import { Type, type Static, type TSchema } from '@sinclair/typebox'
import { Timestamp } from './common.js'

const oneOf = <T extends string>(...names: T[]) => Type.Union(names.map(name => Type.Literal(name)))
const Status = oneOf('healthy', 'degraded')
const Redis = oneOf('connected', 'disconnected')
const Reason = Type.Optional(Type.String({ description: 'Present while the store is unavailable; contains the time since when' }))
const Count = Type.Integer({ minimum: 0 })

const Agents = Type.Object({
  total_registered: Count,
  alive_agents: Count,
  dead_agents: Count,
  agent_types: Type.Record(Type.String(), Count),
  embeddings_stored: Count
})
const Performance = Type.Object({ redis_connected: Type.Boolean(), ai_client_available: Type.Boolean() })
const described = <T extends Record<string, TSchema>>(properties: T) =>
  Type.Object({ ...properties, timestamp: Timestamp, version: Type.String({ description: 'Version of the protocol' }) })

export const Health = described({
  status: Status,
  reason: Reason,
  uptime: Type.Literal('operational'),
  service: Type.String(),
  features: Type.Record(Type.String(), Type.Boolean()),
  storage: Type.Object({ redis: Type.String(), backup_storage: Type.String() }),
  ai_services: Type.Object({ azure_openai: Type.String(), embeddings: Type.Boolean() }),
  agents: Agents,
  performance: Performance
})
export type Health = Static<typeof Health>

export const Probe = Type.Object({ status: Type.String() })

export const DetailedHealth = described({
  status: Status,
  reason: Reason,
  uptime: Type.Literal('operational'),
  service: Type.String(),
  components: Type.Object({
    registry: Type.Object({ status: Type.String(), agents_total: Count, agents_alive: Count }),
    storage: Type.Object({ status: Type.String(), redis: Redis }),
    ai_services: Type.Object({ status: Type.String(), azure_openai: Type.String() })
  }),
  detailed: Type.Object({
    database: Type.Object({
      status: Type.String(),
      type: Type.String({ description: 'Kind of store: `memory`, `level`, `redis`, or `custom` for a store of the host application' })
    }),
    storage: Type.Object({ redis: Redis, backup_storage: Type.String() }),
    ai_services: Type.Object({ azure_openai: Type.String(), embeddings: Type.Boolean(), vector_search: Type.Boolean() }),
    features: Type.Record(Type.String(), Type.Boolean()),
    agents: Agents,
    performance: Performance
  })
})
export type DetailedHealth = Static<typeof DetailedHealth>

const Names = Type.Array(Type.String(), { description: 'Paths of the options that differ from their defaults, without the values' })
export const ConfigHealth = described({
  status: Type.Literal('ok'),
  required_config: Names,
  optional_config: Type.Object({ azure: Names, redis: Names, security: Names, agent: Names, service: Names })
})
export type ConfigHealth = Static<typeof ConfigHealth>

export const RedisHealth = described({
  status: oneOf('healthy', 'unavailable', 'error'),
  redis: oneOf('connected', 'disconnected', 'unknown')
})
export type RedisHealth = Static<typeof RedisHealth>

export const AzureHealth = described({
  status: oneOf('available', 'not_configured', 'initialization_failed', 'unavailable'),
  details: Type.Object({ status: Type.String(), reason: Type.String() })
})
export type AzureHealth = Static<typeof AzureHealth>
