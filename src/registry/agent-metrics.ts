import { coerce } from '../lib/coerce.js'
import { validationFailed, type FieldError } from '../errors.js'
import { AgentMetrics } from '../protocol/schemas/agent.js'
import type { AgentRecord } from '../storage/agent-store.js'
import { fieldErrors } from '../protocol/validation.js'
import { isObject } from './normalize.js'

/** What an agent says of itself; `last_active` and `agent_id` are the registry's to say. */
export type MetricValues = Partial<Omit<AgentMetrics, 'agent_id' | 'last_active'>>

/** One finished request of an agent. */
export interface RequestReport {
  /** Seconds. */
  responseTime: number
  success: boolean
}

/** A report as a store applies it: values replace, a request is counted. */
export type MetricsUpdate = { values: MetricValues } | { request: RequestReport }

/** What a store keeps: the values alone. */
export type StoredMetrics = Required<MetricValues> & { readonly lastActive: number }

const settable = ['success_rate', 'avg_response_time', 'total_requests', 'reputation_score', 'requests_processed', 'average_response_time', 'error_rate'] as const
const maxResponseTime = 3600

export const noMetrics: Readonly<Required<MetricValues>> = Object.freeze({
  success_rate: 0,
  avg_response_time: 0,
  total_requests: 0,
  reputation_score: 0,
  requests_processed: 0,
  average_response_time: 0,
  error_rate: 0
})

/**
 * Counts one request. With n = total_requests + 1, s = 1 or 0 and t in seconds: success_rate is the mean of all s,
 * avg_response_time starts at t and then follows 0.9 avg + 0.1 t, reputation_score =
 * 0.7 success_rate + 0.3 min(1, 1 / max(0.1, avg_response_time)), error_rate = 1 - success_rate.
 */
function countRequest (metrics: Required<MetricValues>, { responseTime, success }: RequestReport): Required<MetricValues> {
  const n = metrics.total_requests + 1
  const rate = (metrics.success_rate * (n - 1) + (success ? 1 : 0)) / n
  const average = metrics.avg_response_time === 0 ? responseTime : 0.9 * metrics.avg_response_time + 0.1 * responseTime
  return {
    success_rate: rate,
    avg_response_time: average,
    average_response_time: average,
    total_requests: n,
    requests_processed: metrics.requests_processed + 1,
    reputation_score: 0.7 * rate + 0.3 * Math.min(1, 1 / Math.max(0.1, average)),
    error_rate: 1 - rate
  }
}

/** The metrics after an update; pure, so that every store computes the same. */
export function applyMetrics (metrics: StoredMetrics | null, update: MetricsUpdate, now: number): StoredMetrics {
  const before = metrics ?? noMetrics
  const after = 'request' in update ? countRequest(before, update.request) : { ...before, ...update.values }
  return { ...after, lastActive: now }
}

/** An `AgentMetrics` for answers and frames. */
export function showMetrics ({ id, metrics, registeredAt }: Pick<AgentRecord, 'id' | 'metrics' | 'registeredAt'>): AgentMetrics {
  const { lastActive, ...values } = metrics ?? { ...noMetrics, lastActive: registeredAt }
  return { agent_id: id, ...values, last_active: new Date(lastActive).toISOString() }
}

/**
 * Reads a report: either metric values, or `{response_time, success}` of one request (as guides show it, with
 * `operation`). Members that are not known are left out.
 * @throws validation-failed with one entry per wrong field
 */
export function parseMetrics (body: unknown): MetricsUpdate {
  if (!isObject(body)) throw validationFailed([{ path: '', message: 'Expected object' }])
  const isRequest = Object.hasOwn(body, 'response_time') || (Object.hasOwn(body, 'success') && !settable.some(name => Object.hasOwn(body, name)))
  return isRequest ? { request: parseRequest(body) } : { values: parseValues(body) }
}

function parseRequest ({ response_time: responseTime, success = true }: Record<string, unknown>): RequestReport {
  const errors: FieldError[] = []
  if (typeof responseTime !== 'number' || !(responseTime >= 0 && responseTime <= maxResponseTime)) {
    errors.push({ path: '/response_time', message: `Expected seconds from 0 to ${maxResponseTime}` })
  }
  if (typeof success !== 'boolean') errors.push({ path: '/success', message: 'Expected boolean' })
  if (errors.length > 0) throw validationFailed(errors)
  return { responseTime: responseTime as number, success: success as boolean }
}

function parseValues (body: Record<string, unknown>): MetricValues {
  const values: Record<string, number> = {}
  const errors: FieldError[] = []
  for (const name of settable) {
    if (!Object.hasOwn(body, name)) continue
    const value = coerce(AgentMetrics.properties[name], body[name])
    const [error] = fieldErrors(AgentMetrics.properties[name], value)
    if (error) errors.push({ path: `/${name}`, message: error.message })
    else values[name] = value as number
  }
  if (errors.length > 0) throw validationFailed(errors)
  return values
}
