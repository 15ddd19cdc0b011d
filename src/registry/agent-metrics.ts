import { coerce } from '../lib/coerce.js'
import { isObject } from '../lib/json.js'
import { validationFailed, type FieldError } from '../errors.js'
import { AgentMetrics } from '../protocol/schemas/agent.js'
import { fieldErrors } from '../protocol/validation.js'
import { noMetrics, type MetricsUpdate, type MetricValues, type RequestReport } from '../storage/agent-metrics.js'
import type { AgentRecord } from '../storage/agent-store.js'

const settable = [
  'success_rate', 'avg_response_time', 'total_requests', 'reputation_score', 'requests_processed', 'average_response_time', 'error_rate'
] as const
const maxResponseTime = 3600

/** The metrics of an agent as the REST API and frames show them. An agent that never reported has zeros. */
export function showMetrics ({ id, metrics, registeredAt }: Pick<AgentRecord, 'id' | 'metrics' | 'registeredAt'>): AgentMetrics {
  const { lastActive, ...values } = metrics ?? { ...noMetrics, lastActive: registeredAt }
  return { agent_id: id, ...values, last_active: new Date(lastActive).toISOString() }
}

/**
 * Parses a report: metric values, or `{ response_time, success }` of one request. Unknown members are ignored.
 * @throws validation-failed with one entry per wrong field
 */
export function parseMetrics (body: unknown): MetricsUpdate {
  if (!isObject(body)) throw validationFailed([{ path: '', message: 'Expected object' }])
  const hasValues = settable.some(name => Object.hasOwn(body, name))
  const isRequest = Object.hasOwn(body, 'response_time') || (Object.hasOwn(body, 'success') && !hasValues)
  return isRequest ? { request: parseRequest(body) } : { values: parseValues(body) }
}

const isResponseTime = (value: unknown): value is number => typeof value === 'number' && value >= 0 && value <= maxResponseTime

function parseRequest ({ response_time: responseTime, success = true }: Record<string, unknown>): RequestReport {
  if (isResponseTime(responseTime) && typeof success === 'boolean') return { responseTime, success }
  const errors: FieldError[] = []
  if (!isResponseTime(responseTime)) errors.push({ path: '/response_time', message: `Expected seconds from 0 to ${maxResponseTime}` })
  if (typeof success !== 'boolean') errors.push({ path: '/success', message: 'Expected boolean' })
  throw validationFailed(errors)
}

function parseValues (body: Record<string, unknown>): MetricValues {
  const values: Record<string, number> = {}
  const errors: FieldError[] = []
  for (const name of settable) {
    if (!Object.hasOwn(body, name)) continue
    const value = coerce(AgentMetrics.properties[name], body[name])
    const [error] = fieldErrors(AgentMetrics.properties[name], value)
    if (error) errors.push({ path: `/${name}`, message: error.message })
    else if (typeof value === 'number') values[name] = value
  }
  if (errors.length > 0) throw validationFailed(errors)
  return values
}
