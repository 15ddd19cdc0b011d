import type { AlertMetric } from '../protocol/schemas/dashboard.js'
import type { AgentsHealth, HealthData } from './health.js'
import type { MonitoringData } from './monitoring.js'
import type { Scalar } from './redact.js'

/** What rules are evaluated on. A metric that says nothing yet is undefined, and no rule about it applies. */
export interface AlertSnapshot {
  readonly values: Readonly<Record<AlertMetric, number | string | undefined>>
  /** Details of alerts by their type; of other types metric and value. */
  readonly details: Readonly<Record<string, Readonly<Record<string, Scalar>>>>
}

/** With fewer requests a rate means nothing. */
const leastRequests = 10

function conditionOf ({ total, active, status, connectivity_ratio: ratio }: AgentsHealth): string {
  if (status === 'no_agents') return 'no_agents'
  if (status === 'error') return 'unknown'
  if (status === 'critical') return active === 0 ? 'none_alive' : 'few_alive'
  if (status === 'degraded' && active === 0) return 'none_alive'
  if (status === 'degraded') return ratio < 0.5 ? 'less_than_half_alive' : 'some_dead'
  return total > 3 && ratio < 0.9 ? 'a_tenth_dead' : 'fine'
}

export function alertSnapshot (monitoring: MonitoringData, health: HealthData): AlertSnapshot {
  const { storage, ai_services: ai, agents } = health.components
  const { resource_utilization: resources, registry } = monitoring
  const rated = (requests: number, rate: number) => requests > leastRequests ? rate : undefined
  return {
    values: {
      avg_response_time: monitoring.agent_count > 0 ? monitoring.avg_response_time : undefined,
      error_rate: rated(monitoring.total_requests, monitoring.error_rate),
      total_requests: monitoring.total_requests,
      registry_avg_response_time: registry.avg_response_time,
      registry_error_rate: rated(registry.total_requests, registry.error_rate),
      registry_total_requests: registry.total_requests,
      agents_total: agents.total,
      agents_active: agents.active,
      agents_ratio: agents.total > 0 ? agents.connectivity_ratio : undefined,
      agents_condition: conditionOf(agents),
      storage_status: storage.status,
      ai_status: ai.status,
      system_status: health.status,
      ...resources
    },
    details: {
      performance: { response_time: monitoring.avg_response_time },
      error_rate: { error_rate: monitoring.error_rate },
      agent_connectivity: { total_agents: agents.total, active_agents: agents.active, ratio: agents.connectivity_ratio },
      storage: { component: 'redis', status: storage.status, redis: storage.redis },
      ai_services: { azure_openai: ai.azure_openai },
      system_health: { status: health.status, reason: health.reason },
      resource_cpu: { cpu_percent: resources.cpu },
      resource_memory: { memory_percent: resources.memory },
      resource_storage: { storage_percent: resources.storage },
      resource_network: { network_percent: resources.network }
    }
  }
}
