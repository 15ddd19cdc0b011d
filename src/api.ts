import type { AgentInfo, RegistrationBody, RegistrationResponse } from './protocol/schemas/agent.js'
import type { WantedState } from './protocol/schemas/common.js'
import type { Static } from '@sinclair/typebox'
import { problem } from './errors.js'
import type { Dashboard } from './dashboard/dashboard.js'
import type { CompletedRequest } from './dashboard/request-stats.js'
import { createLogSink, type LogSink } from './dashboard/logs.js'
import type { HostChannels, HostDirect } from './messaging/host-api.js'
import type { SearchRequest, SearchResult } from './protocol/schemas/search.js'
import type { Enrollment } from './registry/enrollment.js'
import type { Registry, RegistryEmitter } from './registry/registry.js'
import type { Search } from './search/search.js'
import type { Messaging } from './messaging/messaging.js'
import type { ResolvedOptions } from './options.js'
import { select, type AgentFilter } from './registry/query.js'

export interface RegistryStatistics {
  total_agents: number
  alive_agents: number
  dead_agents: number
  agent_types: Record<string, number>
}

/** The registry as the host application uses it. Methods throw the problems of the REST API. */
export interface AgentRegistry extends HostChannels, HostDirect {
  /** The newest revision, `<epoch>:<n>`. */
  readonly revision: string
  /** Emits `registered`, `updated`, `alive`, `dead`, `unregistered` and `state`, and `change` for all of them in order. */
  readonly events: RegistryEmitter
  /** Registers an agent, or a new instance of it. The result contains its access token. */
  register (registration: RegistrationBody): Promise<RegistrationResponse>
  /** Unregisters an agent and revokes its tokens. @throws agent-not-found */
  unregister (agentId: string): Promise<void>
  /** Renews the lease of an agent. @throws agent-not-found */
  heartbeat (agentId: string): Promise<AgentInfo>
  /** Drains an agent, puts it into maintenance, or returns it to service. @throws agent-not-found */
  setStatus (agentId: string, status: Static<typeof WantedState>): Promise<AgentInfo>
  get (agentId: string): AgentInfo | undefined
  /** Lists agents in the order of their registration. */
  list (filter?: AgentFilter): AgentInfo[]
  stats (): RegistryStatistics
  /** Finds the agents in discovery that match a query, best first. @throws not-found if search is disabled */
  search (request: { query: string } & Partial<SearchRequest>): Promise<SearchResult[]>
  /** A `stream` for a pino logger that adds its warnings and errors to the log of the dashboards. */
  readonly logSink: LogSink
  /** Counts a request that no route of the registry has handled, such as a 404 of the host, as `unmatched`. */
  countUnmatched (request: Omit<CompletedRequest, 'endpoint'>): void
  /** Ends self-preservation: held leases expire now, at the limited rate. */
  releaseHeld (): Promise<void>
}

interface ApiServices {
  registry: Registry
  enrollment: Enrollment
  search: Search
  dashboard: Dashboard
  messaging: Messaging
  options: ResolvedOptions
}

export function createApi ({ registry, enrollment, search, dashboard, messaging, options }: ApiServices): AgentRegistry {
  function infoOf (id: string): AgentInfo {
    const info = registry.get(id)
    if (info === undefined) throw problem('agent-not-found', `Agent ${id} not found`)
    return info
  }

  async function register (registration: RegistrationBody): Promise<RegistrationResponse> {
    try {
      return await enrollment.register(registry.parse(registration), null)
    } catch (error) {
      enrollment.reportFailure(registration)
      throw error
    }
  }

  return {
    ...messaging.host,
    get revision () { return registry.revision },
    events: registry.events,
    register,
    unregister: agentId => enrollment.evict(agentId),
    heartbeat: async agentId => infoOf((await registry.heartbeat({ id: agentId })).id),
    setStatus: async (agentId, state) => infoOf((await registry.setState({ id: agentId, state, reason: 'requested' })).id),
    get: agentId => registry.get(agentId),
    list: (filter = {}) => Array.from(select(registry.replica, 'full', filter), ({ rendering }) => rendering.info()),
    stats: () => registry.stats(),
    search: async request => {
      if (!options.search.enabled) throw problem('not-found', 'Search is disabled')
      return search.search(request)
    },
    logSink: createLogSink(dashboard.logs),
    countUnmatched: request => dashboard.requests.record({ ...request, endpoint: undefined }),
    releaseHeld: () => registry.releaseHeld()
  }
}
