import { type TSchema, Type } from '@sinclair/typebox'
import { lowercase, verbatim } from '../../lib/coerce.js'
import { AgentMetrics } from './agent.js'
import { AgentId, AgentType, Capability, Nullable, Revision, Status, Timestamp, Token, WantedState } from './common.js'
import { Grants, PeerMetadata } from './messaging.js'
import type { Readable } from 'node:stream'
import { AgentChange } from '../frames/common.js'

/** A problem document (RFC 9457). */
export const Problem = Type.Object({
  type: Type.String({ description: 'URI reference of the problem type' }),
  title: Type.String(),
  status: Type.Integer(),
  detail: Type.String(),
  instance: Type.String(),
  timestamp: Timestamp,
  request_id: Type.String(),
  errors: Type.Optional(Type.Array(Type.Object({ path: Type.String(), message: Type.String() }), {
    description: 'One entry per invalid field, with its JSON Pointer'
  }))
}, { description: 'Problem document (RFC 9457)', additionalProperties: true })

/** The response schemas of an endpoint: `success`, and the problem documents that every endpoint may return. */
export const answers = <T extends TSchema>(success: T) => ({ 200: success, '4xx': Problem, '5xx': Problem })

export const IdParams = Type.Object({ id: Type.String() })

const Capabilities = Type.Array(Capability, {
  maxItems: 20,
  description: 'The agent must have all of them. Repeat the parameter for each'
})

export const ListQuery = Type.Object({
  agent_type: Type.Optional(Type.String({ maxLength: 100 })),
  status: Type.Optional(Status),
  capabilities: Type.Optional(Capabilities),
  include_metrics: Type.Boolean({ default: false }),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, description: 'Page size; without it the list is not paginated' })),
  cursor: Type.Optional(Type.String({ maxLength: 64, pattern: '^\\d+$', description: 'From the `next` link of the previous page' }))
})
export const RecordQuery = Type.Object({ include_metrics: Type.Boolean({ default: true }) })
export const DiscoverQuery = Type.Object({
  agent_type: Type.Optional(Type.String({ maxLength: 100 })),
  capabilities: Type.Optional(Capabilities),
  limit: Type.Integer({ minimum: 1, maximum: 100, default: 50 }),
  offset: Type.Integer({ minimum: 0, default: 0 })
})

export const Done = Type.Object({ status: Type.Literal('success'), message: Type.String() })
export const HeartbeatAnswer = Type.Object({
  agent_id: AgentId,
  status: Type.Literal('success'),
  last_seen: Timestamp,
  metrics: Type.Null()
})
export const StatusBody = Type.Object({ status: WantedState })
export const Unregistered = Type.Object({ status: Type.Literal('success'), message: Type.String(), unregistered_by: Type.String() })
export const RegistryStats = Type.Object({
  registry_statistics: Type.Object({
    total_agents: Type.Integer(),
    alive_agents: Type.Integer(),
    dead_agents: Type.Integer(),
    agent_types: Type.Record(Type.String(), Type.Integer()),
    embeddings_available: Type.Integer(),
    redis_connected: Type.Boolean(),
    ai_client_available: Type.Boolean()
  }),
  features: Type.Record(Type.String(), Type.Boolean()),
  performance: Type.Object({ active_websocket_connections: Type.Integer(), vector_embeddings_stored: Type.Integer() })
})

export const LoginBody = Type.Object({
  username: Type.Optional(Nullable(Type.String({ maxLength: 255 }))),
  password: Type.Optional(Nullable(Type.String({ minLength: 1, maxLength: 1024, ...verbatim }))),
  agent_id: Type.Optional(Nullable(Type.String({ minLength: 1, maxLength: 100, pattern: '^[a-zA-Z0-9_-]+$' }))),
  agent_type: Type.Optional(Nullable(Type.String({ minLength: 1, maxLength: 50, pattern: '^[a-zA-Z0-9_-]+$' }))),
  agent_key: Type.Optional(Nullable(Type.String({ maxLength: 200, ...verbatim })))
})
export const LoginAnswer = Type.Object({
  access_token: Token,
  token_type: Type.Literal('bearer'),
  expires_in: Type.Integer({ description: 'Seconds' }),
  agent_id: Type.String()
})
export const TempTokenAnswer = Type.Object({
  temp_token: Token,
  token_type: Type.Literal('bearer'),
  expires_in: Type.Integer({ description: 'Seconds' }),
  message: Type.String()
})
export const PinBody = Type.Object({ pin: Type.String({ ...verbatim }) })
export const PinStatus = Type.Object({ pin_set: Type.Boolean() })
export const SessionStatus = Type.Object({
  valid: Type.Literal(true),
  user_id: Type.String(),
  role: Type.String(),
  agent_id: Type.String(),
  expires: Type.Integer({ description: 'Epoch seconds' }),
  is_admin: Type.Boolean(),
  session_exists: Type.Boolean(),
  pin_set: Type.Boolean()
})

export const MintBody = Type.Object({
  user_id: Type.String({ minLength: 2, maxLength: 100, pattern: '^[a-zA-Z0-9_@.-]+$' }),
  agent_id: AgentId,
  scopes: Type.Array(Type.String({ minLength: 1, maxLength: 100, pattern: '^[a-zA-Z0-9_.:-]+$' }), { maxItems: 50, default: [] }),
  role: Type.Union([Type.Literal('user'), Type.Literal('admin'), Type.Literal('agent')], { default: 'user', ...lowercase }),
  agent_type: Type.Optional(Nullable(AgentType)),
  grants: Type.Optional(Grants),
  metadata: Type.Optional(PeerMetadata)
})
export const TokenAnswer = Type.Object({
  access_token: Token,
  token_type: Type.Literal('bearer'),
  expires_in: Type.Integer({ description: 'Seconds' })
})
export const ValidateQuery = Type.Object({ token: Type.String({ minLength: 1, ...verbatim }) })
export const TokenVerdict = Type.Object({
  valid: Type.Boolean(),
  agent_id: Type.Optional(Type.String()),
  payload: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  error: Type.Optional(Type.String())
})
export const RevokeBody = Type.Object({
  token: Type.Optional(Type.String({ minLength: 1, ...verbatim })),
  agent_id: Type.Optional(AgentId)
}, { description: 'A token (RFC 7009), or all tokens of an agent' })
export const TicketBody = Type.Object({
  tier: Type.Union([Type.Literal('public'), Type.Literal('agents'), Type.Literal('dashboard')], { default: 'agents' })
})
export const TicketAnswer = Type.Object({ ticket: Type.String(), expires_in: Type.Integer({ description: 'Seconds' }) })

export const PublicStats = Type.Object({
  alive_agents: Type.Integer(),
  total_agents: Type.Integer(),
  agent_types: Type.Integer({ description: 'Number of agent types' }),
  system_status: Type.Literal('operational'),
  last_updated: Timestamp,
  features: Type.Record(Type.String(), Type.Boolean()),
  available_types: Type.Optional(Type.Array(Type.String()))
})
export const AgentTypes = Type.Object({ allowed_agent_types: Type.Array(Type.String()) })

export const MetricsBody = Type.Unknown({
  description: 'Fields of AgentMetrics, or `{response_time, success}` of one request. Other members are ignored'
})
export const MetricsAnswer = Type.Object({ status: Type.Literal('success'), message: Type.String(), metrics: AgentMetrics })
export const ReportQuery = Type.Object({
  response_time: Type.Number({ minimum: 0, maximum: 3600, description: 'Seconds' }),
  success: Type.Boolean({ default: true })
})
export const ReportAnswer = Type.Object({
  status: Type.Literal('success'),
  message: Type.String(),
  current_metrics: Type.Object({
    success_rate: Type.Number(),
    avg_response_time: Type.Number({ description: 'Seconds' }),
    total_requests: Type.Integer(),
    reputation_score: Type.Number(),
    last_active: Timestamp
  })
})
export const NotifyAnswer = Type.Object({
  status: Type.Literal('notified'),
  message: Type.String(),
  agent_endpoint: Type.String(),
  next_step: Type.String()
})

const since = Type.String({ minLength: 1, maxLength: 64, description: 'The last revision that the client has seen' })
const filter = {
  agent_type: Type.Optional(Type.String({ maxLength: 100, description: 'Case-insensitive' })),
  capabilities: Type.Optional(Capabilities),
  status: Type.Optional(Status)
}

export const ChangesQuery = Type.Object({
  since: Type.Optional(since),
  ...filter,
  wait: Type.Number({ minimum: 0, maximum: 30, default: 0, description: 'Approximate time to wait for a change, in seconds' }),
  limit: Type.Integer({ minimum: 1, maximum: 500, default: 500, description: 'Maximum number of changes' })
})

export const ChangesAnswer = Type.Object({
  changes: Type.Array(AgentChange, { description: 'Changes in order' }),
  revision: Type.String({ ...Revision, description: 'Value of `since` for the next request' }),
  resync: Type.Optional(Type.Literal(true, { description: 'The changes after `since` are not available: list the agents again' }))
})

export const EventsQuery = Type.Object({
  since: Type.Optional(since),
  snapshot: Type.Boolean({ default: false, description: 'Send all agents first' }),
  ...filter
})

/** A stream, which continues until the client disconnects. */
export const EventsAnswer = {
  description: 'Server-Sent Events: `put`, `state`, `remove`, `snapshot`, `resync`, `bookmark`, `going_away`, `end`',
  content: { 'text/event-stream': { schema: Type.Unsafe<Readable>({ type: 'string' }) } }
}
