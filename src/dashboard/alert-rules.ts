import { OptionsError } from '../errors.js'
import { AlertRuleInput, type AlertComparison, type AlertMetric } from '../protocol/schemas/dashboard.js'
import { fieldErrors, matches } from '../protocol/validation.js'
import type { AgentsHealth, HealthData } from './health.js'
import type { Scalar } from './logs.js'
import type { MonitoringData } from './monitoring.js'

/** The most severe first. */
export const severities = ['critical', 'warning', 'info'] as const
export type AlertSeverity = typeof severities[number]

const minutes = 60_000
const cooldowns: Record<AlertSeverity, number> = { critical: 5 * minutes, warning: 15 * minutes, info: 60 * minutes }

/** A rule with all defaults applied. */
export interface AlertRule {
  readonly id: string
  readonly type: string
  readonly metric: AlertMetric
  readonly comparison: AlertComparison
  readonly threshold: number | string
  readonly forMs: number
  readonly severity: AlertSeverity
  readonly cooldownMs: number
  readonly title?: string
  readonly message: string
}

function applyDefaults (rule: AlertRuleInput): AlertRule {
  const severity = rule.severity ?? 'warning'
  return { comparison: '>', forMs: 0, cooldownMs: cooldowns[severity], ...rule, severity }
}

type Step = readonly [threshold: number | string, severity: AlertSeverity, message?: string]

/** Rules of one type about one metric, the most severe first. */
function rulesOf (type: string, metric: AlertMetric, comparison: AlertComparison, message: string, steps: readonly Step[]): AlertRule[] {
  return steps.map(([threshold, severity, text = message]) =>
    applyDefaults({ id: `${type}.${threshold}`, type, metric, comparison, threshold, severity, message: text }))
}

/** The rules that ARCP clients expect; response times in seconds. */
export const defaultAlertRules: readonly AlertRule[] = [
  ...rulesOf('performance', 'avg_response_time', '>', 'Average response time is {value} s', [
    [2, 'critical'], [1.5, 'warning'], [1, 'info']
  ]),
  ...rulesOf('error_rate', 'error_rate', '>', 'Error rate is {percent} %', [
    [0.2, 'critical'], [0.15, 'warning'], [0.1, 'info'], [0.05, 'info']
  ]),
  ...rulesOf('agent_connectivity', 'agents_condition', '=', '{active_agents} of {total_agents} agents are alive', [
    ['none_alive', 'critical', 'No active agents: all {total_agents} are dead'],
    ['few_alive', 'critical'],
    ['less_than_half_alive', 'warning'],
    ['no_agents', 'warning', 'No agents registered'],
    ['some_dead', 'info'],
    ['a_tenth_dead', 'info']
  ]),
  ...rulesOf('storage', 'storage_status', '=', 'Storage is degraded', [
    ['error', 'critical', 'Storage connection failed'], ['degraded', 'warning']
  ]),
  ...rulesOf('ai_services', 'ai_status', '=', 'AI services are degraded', [['degraded', 'info']]),
  ...rulesOf('system_health', 'system_status', '=', 'System health is unhealthy: {reason}', [['unhealthy', 'critical']]),
  ...rulesOf('resource_cpu', 'cpu', '>', 'CPU usage is {value} %', [[90, 'critical'], [80, 'warning'], [70, 'info']]),
  ...rulesOf('resource_memory', 'memory', '>', 'Memory usage is {value} %', [[95, 'critical'], [85, 'warning'], [75, 'info']]),
  ...rulesOf('resource_storage', 'storage', '>', 'Disk usage is {value} %', [[95, 'critical'], [85, 'warning'], [80, 'info']]),
  ...rulesOf('resource_network', 'network', '>', 'Network usage is {value} %', [[80, 'warning'], [60, 'info']])
]

function parseRule (rule: unknown, index: number): AlertRule {
  const path = `dashboard.alertRules.${index}`
  if (!matches(AlertRuleInput, rule)) {
    const [error] = fieldErrors(AlertRuleInput, rule)
    throw new OptionsError(`${path}${error?.path.replaceAll('/', '.')}: ${error?.message}`)
  }
  const { comparison = '>', threshold } = rule
  if (typeof threshold === 'string' && comparison !== '=') {
    throw new OptionsError(`${path}.threshold: text can only be compared with '='`)
  }
  return applyDefaults(rule)
}

/**
 * The default rules and those of the options; a rule with the id of a default rule replaces it.
 * @throws AGENT_REGISTRY_INVALID_OPTIONS with the path of the invalid member
 */
export function resolveAlertRules (given: readonly unknown[] = []): AlertRule[] {
  const rules = new Map(defaultAlertRules.map(rule => [rule.id, rule]))
  for (const rule of given.map(parseRule)) rules.set(rule.id, rule)
  return [...rules.values()]
}

/** The values that rules are evaluated on. No rule applies to a metric whose value is undefined. */
export interface AlertSnapshot {
  readonly values: Readonly<Record<AlertMetric, number | string | undefined>>
  /** Details of alerts by their type; alerts of other types have the metric and its value. */
  readonly details: Readonly<Record<string, Readonly<Record<string, Scalar>>>>
}

/** A rate over fewer requests is not significant. */
const minRequests = 10

function agentsCondition ({ total, active, status, connectivity_ratio: ratio }: AgentsHealth): string {
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
  const significant = (requests: number, rate: number) => requests > minRequests ? rate : undefined
  return {
    values: {
      avg_response_time: monitoring.agent_count > 0 ? monitoring.avg_response_time : undefined,
      error_rate: significant(monitoring.total_requests, monitoring.error_rate),
      total_requests: monitoring.total_requests,
      registry_avg_response_time: registry.avg_response_time,
      registry_error_rate: significant(registry.total_requests, registry.error_rate),
      registry_total_requests: registry.total_requests,
      agents_total: agents.total,
      agents_active: agents.active,
      agents_ratio: agents.total > 0 ? agents.connectivity_ratio : undefined,
      agents_condition: agentsCondition(agents),
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
