import { Type, type Static } from '@sinclair/typebox'
import { AgentId, AgentType, Capability, Endpoint, Nullable, Revision, State, Status, Text, Timestamp, type AgentState } from './common.js'

const RegExpText = Text({ maxLength: 500, description: 'A regular expression' })
const Texts = (maxItems: number, maxLength: number) => Type.Array(Text({ maxLength }), { maxItems })
const optional = { default: null }

const configField = {
  name: Text({ minLength: 1, maxLength: 100, pattern: '^[a-zA-Z0-9_-]+$' }),
  label: Text({ minLength: 1, maxLength: 200 }),
  type: Type.Union(['text', 'select', 'multiselect', 'boolean', 'number', 'textarea', 'array'].map(name => Type.Literal(name))),
  description: Type.Optional(Nullable(Text({ maxLength: 1000 }))),
  default_value: Type.Optional(Nullable(Type.Union([Type.String(), Type.Integer(), Type.Boolean(), Type.Array(Type.String())]))),
  options: Type.Optional(Nullable(Texts(50, 200))),
  validation: Type.Optional(Nullable(RegExpText)),
  placeholder: Type.Optional(Nullable(Text({ maxLength: 300 })))
}

export const AgentRequirements = Type.Object({
  system_requirements: Type.Array(Text({ maxLength: 200 }), { maxItems: 50 }),
  permissions: Type.Array(Text({ maxLength: 100 }), { maxItems: 30 }),
  dependencies: Type.Array(Text({ maxLength: 200 }), { maxItems: 100 }),
  minimum_system_version: Nullable(Text({ maxLength: 50, pattern: '^[0-9]+(\\.[0-9]+)*([a-zA-Z0-9\\-+]*)?$' })),
  minimum_memory_mb: Nullable(Type.Integer({ minimum: 1, maximum: 1_048_576 })),
  minimum_disk_space_mb: Nullable(Type.Integer({ minimum: 1, maximum: 10_485_760 })),
  requires_internet: Type.Boolean(),
  network_ports: Type.Array(Text({ pattern: '^\\d+(-\\d+)?$' }), { maxItems: 20 }),
  required_fields: Type.Array(Type.Object(configField), { maxItems: 50 }),
  optional_fields: Type.Array(Type.Object({ ...configField, category: Type.Optional(Nullable(Text({ maxLength: 100 }))) }), {
    maxItems: 100
  }),
  user_configuration: Type.Record(Type.String(), Type.Unknown(), { maxProperties: 100 }),
  schema_version: Text({ pattern: '^\\d+\\.\\d+$' })
}, { description: 'Requirements for running the agent' })

/** Matches one code point, with or without the flag `u`. The alternatives exclude each other, so that it never backtracks. */
const character = '(?:[\\ud800-\\udbff][\\udc00-\\udfff]|[^\\ud800-\\udbff]|[\\ud800-\\udbff](?![\\udc00-\\udfff]))'

const MetadataValue = Type.Union([Text({ maxLength: 1000 }), Type.Number(), Type.Boolean(), Type.Array(Type.Unknown())])

/** A registration as stored: trimmed, complete and without unknown members (see `normalizeRegistration`). */
export const AgentRegistration = Type.Object({
  agent_id: AgentId,
  name: Text({ minLength: 2, maxLength: 32 }),
  agent_type: AgentType,
  endpoint: Endpoint,
  capabilities: Type.Array(Capability, { minItems: 1, maxItems: 50 }),
  context_brief: Text({ minLength: 10, maxLength: 1000, description: 'Description of the agent, for people and models' }),
  version: Text({ pattern: '^\\d+\\.\\d+\\.\\d+(-[a-zA-Z0-9]+)?$', examples: ['1.0.0'] }),
  owner: Text({ minLength: 2, maxLength: 50 }),
  public_key: Text({ minLength: 32, maxLength: 1024, pattern: '^[a-zA-Z0-9+/=\\-_\\s\\n\\r]+$' }),
  metadata: Type.Record(Type.String({ pattern: `^${character}{1,100}$` }), MetadataValue, {
    minProperties: 1,
    maxProperties: 50,
    additionalProperties: false,
    description: 'Free-form metadata: strings, numbers, booleans or arrays'
  }),
  communication_mode: Type.Union([Type.Literal('remote'), Type.Literal('local'), Type.Literal('hybrid')]),
  features: Type.Array(Text({ minLength: 1, maxLength: 100 }), { maxItems: 100, default: [] }),
  max_tokens: Nullable(Type.Integer({ minimum: 1, maximum: 1_000_000 }), optional),
  language_support: Nullable(Type.Array(Text({ minLength: 2, maxLength: 5 }), { maxItems: 20 }), optional),
  rate_limit: Nullable(Type.Integer({ minimum: 1, maximum: 10_000 }), optional),
  requirements: Nullable(AgentRequirements, optional),
  policy_tags: Type.Array(Text({ minLength: 1, maxLength: 50 }), { maxItems: 20, default: [] }),
  ai_context: Nullable(Text({ maxLength: 5000 }), optional)
})
export type AgentRegistration = Static<typeof AgentRegistration>

/** The body of a registration request. `normalizeRegistration` adds the members that are missing. */
export const RegistrationBody = Type.Composite([
  Type.Omit(AgentRegistration, ['features', 'policy_tags', 'max_tokens', 'language_support', 'rate_limit', 'requirements', 'ai_context']),
  Type.Object({
    features: Type.Optional(Nullable(AgentRegistration.properties.features)),
    policy_tags: Type.Optional(Nullable(AgentRegistration.properties.policy_tags)),
    max_tokens: Type.Optional(AgentRegistration.properties.max_tokens),
    language_support: Type.Optional(AgentRegistration.properties.language_support),
    rate_limit: Type.Optional(AgentRegistration.properties.rate_limit),
    requirements: Type.Optional(Nullable(Type.Partial(AgentRequirements))),
    ai_context: Type.Optional(AgentRegistration.properties.ai_context)
  })
])
export type RegistrationBody = Static<typeof RegistrationBody>

/** Fields that a registration request may omit. */
export const optionalFields = [
  'features', 'max_tokens', 'language_support', 'rate_limit', 'requirements', 'policy_tags', 'ai_context'
] as const

/** Fields that the public tier may hide (option `publicFields`). Existing clients do not require them. */
export const hideableFields = [...optionalFields, 'metrics'] as const

export const AgentMetrics = Type.Object({
  agent_id: AgentId,
  success_rate: Type.Number({ minimum: 0, maximum: 1 }),
  avg_response_time: Type.Number({ minimum: 0, maximum: 3600, description: 'Seconds' }),
  total_requests: Type.Integer({ minimum: 0 }),
  last_active: Timestamp,
  reputation_score: Type.Number({ minimum: 0, maximum: 10 }),
  requests_processed: Type.Integer({ minimum: 0 }),
  average_response_time: Type.Number({ minimum: 0, maximum: 3600, description: 'Seconds' }),
  error_rate: Type.Number({ minimum: 0, maximum: 1 })
})
export type AgentMetrics = Static<typeof AgentMetrics>

/** An agent in responses and frames. */
export const AgentInfo = Type.Object({
  ...AgentRegistration.properties,
  registered_at: Timestamp,
  revision: Revision,
  incarnation: Type.Integer({ description: 'Increases with every registration of the same agent_id' }),
  status: Status,
  state: State,
  last_seen: Timestamp,
  similarity: Nullable(Type.Number({ minimum: 0, maximum: 1 })),
  metrics: Nullable(AgentMetrics)
})
export type AgentInfo = Static<typeof AgentInfo>

export const RegistrationResponse = Type.Object({
  status: Type.Literal('success'),
  message: Type.String(),
  agent_id: AgentId,
  access_token: Type.String(),
  created: Type.Boolean({ description: 'False if the id was registered before' }),
  revision: Revision,
  incarnation: Type.Integer(),
  lease_ms: Type.Integer({ description: 'Time without a heartbeat after which the agent is dead, in milliseconds' }),
  heartbeat_every_ms: Type.Integer({ description: 'Recommended interval between heartbeats, in milliseconds' })
})
export type RegistrationResponse = Static<typeof RegistrationResponse>

/** The `status` of an agent: existing clients know only two of the six states. */
export const statusOf = (state: AgentState): 'alive' | 'dead' => state === 'dead' ? 'dead' : 'alive'

/** Whether discovery and the public tier show an agent in this state. */
export const isDiscoverable = (state: AgentState): boolean => state !== 'dead' && state !== 'draining' && state !== 'maintenance'
