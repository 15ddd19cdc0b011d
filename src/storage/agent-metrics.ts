import type { AgentMetrics } from '../protocol/schemas/agent.js'

/** The metrics that an agent may report. The registry sets `agent_id` and `last_active`. */
export type MetricValues = Partial<Omit<AgentMetrics, 'agent_id' | 'last_active'>>

/** One request that an agent has completed. */
export interface RequestReport {
  /** Seconds. */
  responseTime: number
  success: boolean
}

/** A report: `values` replace stored values, a `request` is counted. */
export type MetricsUpdate = { values: MetricValues } | { request: RequestReport }

/** Metrics as a store keeps them. `lastActive` is in epoch milliseconds. */
export type StoredMetrics = Required<MetricValues> & { readonly lastActive: number }

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

/** Returns the metrics after an update. Pure, so that every store computes the same result. */
export function applyMetrics (metrics: StoredMetrics | null, update: MetricsUpdate, now: number): StoredMetrics {
  const before = metrics ?? noMetrics
  const after = 'request' in update ? countRequest(before, update.request) : { ...before, ...update.values }
  return { ...after, lastActive: now }
}
