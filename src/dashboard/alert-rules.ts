import { OptionsError } from '../errors.js'
import { AlertRuleInput, type AlertMetric, type Comparison } from '../protocol/schemas/dashboard.js'
import { fieldErrors } from '../protocol/validation.js'

export const severities = ['critical', 'warning', 'info'] as const
export type AlertSeverity = typeof severities[number]

const minutes = 60_000
const cooldowns: Record<AlertSeverity, number> = { critical: 5 * minutes, warning: 15 * minutes, info: 60 * minutes }

/** When to raise which alert. */
export interface AlertRule {
  readonly id: string
  readonly type: string
  readonly metric: AlertMetric
  readonly comparison: Comparison
  readonly threshold: number | string
  readonly forMs: number
  readonly severity: AlertSeverity
  readonly cooldownMs: number
  readonly title?: string
  readonly message: string
}

const complete = (rule: AlertRuleInput): AlertRule => {
  const severity = rule.severity ?? 'warning'
  return { comparison: '>', forMs: 0, cooldownMs: cooldowns[severity], ...rule, severity }
}

type Step = readonly [threshold: number | string, severity: AlertSeverity, message?: string]

/** Rules of one type about one metric, the most severe first. */
function ladder (type: string, metric: AlertMetric, comparison: Comparison, message: string, steps: readonly Step[]): AlertRule[] {
  return steps.map(([threshold, severity, text = message]) =>
    complete({ id: `${type}.${threshold}`, type, metric, comparison, threshold, severity, message: text }))
}

/** The rules that existing clients expect; response times in seconds. */
export const defaultAlertRules: readonly AlertRule[] = [
  ...ladder('performance', 'avg_response_time', '>', 'Average response time is {value} s', [[2, 'critical'], [1.5, 'warning'], [1, 'info']]),
  ...ladder('error_rate', 'error_rate', '>', 'Error rate is {percent} %', [[0.2, 'critical'], [0.15, 'warning'], [0.1, 'info'], [0.05, 'info']]),
  ...ladder('agent_connectivity', 'agents_condition', '=', '{active_agents} of {total_agents} agents are alive', [
    ['none_alive', 'critical', 'No active agents: all {total_agents} are dead'],
    ['few_alive', 'critical'],
    ['less_than_half_alive', 'warning'],
    ['no_agents', 'warning', 'No agents registered'],
    ['some_dead', 'info'],
    ['a_tenth_dead', 'info']
  ]),
  ...ladder('storage', 'storage_status', '=', 'Storage is degraded', [['error', 'critical', 'Storage connection failed'], ['degraded', 'warning']]),
  ...ladder('ai_services', 'ai_status', '=', 'AI services are degraded', [['degraded', 'info']]),
  ...ladder('system_health', 'system_status', '=', 'System health is unhealthy: {reason}', [['unhealthy', 'critical']]),
  ...ladder('resource_cpu', 'cpu', '>', 'CPU usage is {value} %', [[90, 'critical'], [80, 'warning'], [70, 'info']]),
  ...ladder('resource_memory', 'memory', '>', 'Memory usage is {value} %', [[95, 'critical'], [85, 'warning'], [75, 'info']]),
  ...ladder('resource_storage', 'storage', '>', 'Disk usage is {value} %', [[95, 'critical'], [85, 'warning'], [80, 'info']]),
  ...ladder('resource_network', 'network', '>', 'Network usage is {value} %', [[80, 'warning'], [60, 'info']])
]

function assertRule (rule: unknown, index: number): asserts rule is AlertRuleInput {
  const [wrong] = fieldErrors(AlertRuleInput, rule)
  if (wrong) throw new OptionsError(`dashboard.alertRules.${index}${wrong.path.replaceAll('/', '.')}: ${wrong.message}`)
  const { comparison = '>', threshold } = rule as AlertRuleInput
  if (typeof threshold === 'string' && comparison !== '=') throw new OptionsError(`dashboard.alertRules.${index}.threshold: text can only be compared with '='`)
}

/**
 * The default rules and one's own; an own rule takes the place of a default one of its id.
 * @throws AGENT_REGISTRY_INVALID_OPTIONS naming the wrong member
 */
export function resolveAlertRules (own: readonly unknown[] = []): AlertRule[] {
  const rules = new Map(defaultAlertRules.map(rule => [rule.id, rule]))
  for (const [index, rule] of own.entries()) {
    assertRule(rule, index)
    rules.set(rule.id, complete(rule))
  }
  return [...rules.values()]
}
