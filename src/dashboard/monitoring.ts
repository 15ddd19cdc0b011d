import type { Replica } from '../registry/replica.js'
import type { AgentMetrics } from '../protocol/schemas/agent.js'
import type { AgentRecord } from '../storage/agent-store.js'
import { round } from './frames.js'
import type { ProcessUsage, ResourceUtilization } from './resources.js'
import type { RequestSummary } from './request-stats.js'

/** Data of a `monitoring` frame. All response times are in seconds. */
export interface MonitoringData {
  /** Sum over all agents that have reported metrics, including dead ones. */
  total_requests: number
  /** Mean over the agents, weighted by their number of requests. */
  avg_response_time: number
  /** Weighted mean of their error rates, 0 to 1. */
  error_rate: number
  agent_metrics: AgentMetrics[]
  /** `agent_metrics` contains only the newest registrations. */
  truncated?: true
  agent_count: number
  resource_utilization: ResourceUtilization
  process: ProcessUsage
  /** HTTP requests to the registry itself. */
  registry: RequestSummary
}

interface MonitoringSources {
  replica: Pick<Replica, 'newest' | 'size'>
  /** Returns the metrics that an agent has reported, or null. */
  metricsOf: (record: AgentRecord) => AgentMetrics | null
  resources: () => ResourceUtilization
  process: () => ProcessUsage
  requests: () => RequestSummary
}

/** The metrics of this number of agents fit into a frame, whatever their ids are. */
const maxAgentMetrics = 2_000

/** Sums for the weighted and the plain means. */
interface Totals { agents: number, requests: number, time: number, errors: number, plainTime: number, plainErrors: number }

/** Agents report under either of two names; a name that is not reported has the value 0. */
const requestsOf = (metrics: AgentMetrics) => metrics.total_requests || metrics.requests_processed
const responseTimeOf = (metrics: AgentMetrics) => metrics.avg_response_time || metrics.average_response_time

function addTo (totals: Totals, metrics: AgentMetrics): void {
  const [requests, time] = [requestsOf(metrics), responseTimeOf(metrics)]
  totals.agents++
  totals.requests += requests
  totals.time += time * requests
  totals.errors += metrics.error_rate * requests
  totals.plainTime += time
  totals.plainErrors += metrics.error_rate
}

/** Means weighted by requests, so that idle agents do not count; plain means if no agent reports requests. */
function means ({ agents, requests, time, errors, plainTime, plainErrors }: Totals) {
  const [weight, sumOfTimes, sumOfErrors] = requests > 0 ? [requests, time, errors] : [Math.max(1, agents), plainTime, plainErrors]
  return { avg_response_time: round(sumOfTimes / weight, 2), error_rate: round(sumOfErrors / weight, 3) }
}

/** O(agents). */
export function monitoringData ({ replica, metricsOf, resources, process, requests }: MonitoringSources): MonitoringData {
  const totals: Totals = { agents: 0, requests: 0, time: 0, errors: 0, plainTime: 0, plainErrors: 0 }
  const shown: AgentMetrics[] = []
  for (const { record } of replica.newest()) {
    const metrics = metricsOf(record)
    if (!metrics) continue
    addTo(totals, metrics)
    if (shown.length < maxAgentMetrics) shown.push(metrics)
  }
  return {
    total_requests: totals.requests,
    ...means(totals),
    agent_metrics: shown,
    ...(shown.length < totals.agents ? { truncated: true as const } : {}),
    agent_count: replica.size,
    resource_utilization: resources(),
    process: process(),
    registry: requests()
  }
}
