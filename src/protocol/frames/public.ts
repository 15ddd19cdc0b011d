import { Type, type Static } from '@sinclair/typebox'
import { AgentInfo } from '../schemas/agent.js'
import { Nullable, Revision } from '../schemas/common.js'
import { ClientFrame, commonClientFrames, commonServerFrames, EpochSeconds, RequestId, ServerFrame } from './common.js'

/** A number, or a string that contains one: existing clients send both. */
const NumberLike = Type.Union([Type.Number(), Type.String({ pattern: '^\\s*[-+]?\\d{1,15}\\s*$' })])

export const GetDiscoveryFrame = ClientFrame('get_discovery', {
  page: Type.Optional(NumberLike),
  page_size: Type.Optional(NumberLike),
  agent_type: Type.Optional(Nullable(Type.String({ maxLength: 100 })))
}, {
  description: 'Requests a page of the visible agents. Values out of range are clamped',
  answers: ['discovery_data'],
  examples: [{ type: 'get_discovery', requestId: 'r1', page: 1, page_size: 30, agent_type: 'testing' }]
})
export type GetDiscoveryFrame = Static<typeof GetDiscoveryFrame>

export const Welcome = ServerFrame('welcome', {
  message: Type.String(),
  features: Type.Array(Type.String()),
  commands: Type.Object({ ping: Type.String(), get_discovery: Type.String() }),
  pagination: Type.Object({
    default_page_size: Type.Integer({ examples: [30] }), max_page_size: Type.Integer({ examples: [100] }), usage: Type.String()
  }),
  revision: Revision
}, { description: 'The first frame of a connection' })
export const StatsUpdate = ServerFrame('stats_update', {
  timestamp: EpochSeconds,
  data: Type.Object({
    total_agents: Type.Integer(),
    alive_agents: Type.Integer(),
    dead_agents: Type.Integer(),
    agent_types_count: Type.Integer(),
    available_types: Type.Array(Type.String()),
    system_status: Type.Literal('operational')
  })
}, { description: 'Agent counts, sent periodically' })
export const AgentsUpdate = ServerFrame('agents_update', {
  timestamp: EpochSeconds,
  data: Type.Object({
    agents: Type.Array(AgentInfo),
    total_count: Type.Integer({ description: 'The full number of agents, also if the list is truncated' }),
    revision: Revision,
    truncated: Type.Optional(Type.Literal(true))
  })
}, { description: 'The visible agents. Sent after changes, unless the connection has a `watch`' })
export const DiscoveryData = ServerFrame('discovery_data', {
  timestamp: EpochSeconds,
  requestId: Type.Optional(RequestId),
  data: Type.Object({
    agents: Type.Array(AgentInfo),
    pagination: Type.Object({
      current_page: Type.Integer({ examples: [1] }),
      page_size: Type.Integer({ examples: [30] }),
      total_agents: Type.Integer(),
      total_pages: Type.Integer(),
      has_next: Type.Boolean({ examples: [false] }),
      has_previous: Type.Boolean({ examples: [false] }),
      next_page: Nullable(Type.Integer(), { examples: [null] }),
      previous_page: Nullable(Type.Integer(), { examples: [null] })
    }),
    filters: Type.Object({ agent_type: Nullable(Type.String(), { examples: ['testing'] }) }),
    omitted: Type.Optional(Type.Array(Type.String(), { description: 'agent_ids of this page that exceed the frame size limit' }))
  })
}, { description: 'A page of the visible agents' })

export const publicClientFrames = { ...commonClientFrames, get_discovery: GetDiscoveryFrame }
export const publicServerFrames = [...commonServerFrames, Welcome, StatsUpdate, AgentsUpdate, DiscoveryData]
