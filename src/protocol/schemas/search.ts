import { Type, type Static } from '@sinclair/typebox'
import { AgentInfo, AgentMetrics } from './agent.js'
import { AgentId, Capability, Endpoint, Nullable, Text, Timestamp } from './common.js'

const Capabilities = Type.Array(Capability, { minItems: 1, maxItems: 20, description: 'The agent must have all of them' })
const TypeFilter = Text({ minLength: 2, maxLength: 50, pattern: '^[a-zA-Z0-9_-]+$', description: 'Case-insensitive' })

const common = {
  query: Text({ minLength: 2, maxLength: 1000, description: 'Description of the desired agent', examples: ['summarise legal documents'] }),
  top_k: Type.Optional(Type.Integer({ minimum: 1, maximum: 100, description: 'Maximum number of results' })),
  min_similarity: Type.Optional(Type.Number({ minimum: 0, maximum: 1 })),
  weighted: Type.Boolean({ default: false, description: 'Includes reputation in the ranking and metrics in the results' })
}

/** Body of a search. */
export const SearchBody = Type.Object({
  ...common,
  capabilities: Type.Optional(Nullable(Capabilities)),
  agent_type: Type.Optional(Nullable(TypeFilter))
})
export type SearchBody = Static<typeof SearchBody>

/** A search with all defaults applied. */
export interface SearchRequest {
  query: string
  top_k: number
  min_similarity: number
  weighted: boolean
  capabilities?: readonly string[] | null
  agent_type?: string | null
}

/** The query string of a search; `capabilities` may be repeated. */
export const SearchQuery = Type.Object({
  ...common,
  capabilities: Type.Optional(Capabilities),
  agent_type: Type.Optional(TypeFilter)
})
export type SearchQuery = Static<typeof SearchQuery>

const { name, capabilities, version, owner } = AgentInfo.properties

export const SearchResult = Type.Object({
  id: AgentId,
  name,
  url: Endpoint,
  capabilities,
  version,
  owner,
  similarity: Type.Number({ minimum: 0, maximum: 1, description: 'Rounded to 4 decimal places' }),
  metrics: Nullable(AgentMetrics)
})
export type SearchResult = Static<typeof SearchResult>

/** Best match first, equal matches by id. */
export const SearchResponse = Type.Array(SearchResult)

const InfoValue = Type.Union([Text({ maxLength: 1000 }), Type.Number(), Type.Boolean(), Type.Array(Type.Unknown()), Type.Object({})])

/** A user asks an agent to contact it. */
export const ConnectionRequest = Type.Object({
  user_id: Text({ minLength: 2, maxLength: 100, pattern: '^[a-zA-Z0-9_@.-]+$' }),
  user_endpoint: Endpoint,
  display_name: Text({ maxLength: 200, pattern: '^[^\\u0000-\\u001f\\u007f]*$', default: 'Anonymous User' }),
  additional_info: Type.Record(Type.String({ pattern: '^[\\s\\S]{1,100}$' }), InfoValue, {
    maxProperties: 50, additionalProperties: false, default: {}
  })
})
export type ConnectionRequest = Static<typeof ConnectionRequest>

const connectionStatuses = ['requested', 'accepted', 'rejected', 'pending', 'timeout', 'error'] as const

export const ConnectionResponse = Type.Object({
  status: Type.Union(connectionStatuses.map(status => Type.Literal(`connection_${status}`))),
  message: Type.String({ minLength: 5, maxLength: 500 }),
  next_steps: Type.String({ minLength: 10, maxLength: 1000 }),
  agent_info: Type.Object({
    name,
    agent_type: AgentInfo.properties.agent_type,
    capabilities,
    requirements: AgentInfo.properties.requirements
  }),
  request_id: Type.String({ minLength: 5, maxLength: 100, pattern: '^[a-zA-Z0-9_-]+$' }),
  timestamp: Timestamp
})
export type ConnectionResponse = Static<typeof ConnectionResponse>

/** An agent tells another agent its endpoint. */
export const NotifyRequest = Type.Object({
  agent_id: AgentId,
  agent_endpoint: Endpoint,
  agent_info: Type.Record(Type.String({ pattern: '^[\\s\\S]{1,100}$' }), Type.Unknown(), {
    maxProperties: 50, additionalProperties: false, default: {}
  })
})
export type NotifyRequest = Static<typeof NotifyRequest>
