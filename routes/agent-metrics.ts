import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from '@sinclair/typebox'
import fp from 'fastify-plugin'
import { assertSelf, heartbeatOf } from '../plugins/auth.js'
import { parseBody } from '../plugins/validation.js'
import { problem, validationFailed, type FieldError } from '../src/errors.js'
import { coerce } from '../src/lib/coerce.js'
import { isObject } from '../src/lib/json.js'
import { AgentMetrics } from '../src/protocol/schemas/agent.js'
import { answers, IdParams, MetricsAnswer, MetricsBody, ReportAnswer, ReportQuery } from '../src/protocol/schemas/rest.js'
import { fieldErrors } from '../src/protocol/validation.js'
import type { Registry } from '../src/registry/registry.js'
import { showMetrics } from '../src/registry/render.js'
import type { MetricsUpdate, MetricValues, RequestReport } from '../src/storage/agent-metrics.js'
import type { AgentRecord } from '../src/storage/agent-store.js'

const tags = ['agents']
const message = 'Metrics updated successfully'

const Update = Type.Unsafe<MetricsUpdate>(MetricsBody)

const settable = [
  'success_rate', 'avg_response_time', 'total_requests', 'reputation_score', 'requests_processed', 'average_response_time', 'error_rate'
] as const
const maxResponseTime = 3600

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

/** The reported metrics with rates and times of three decimals, which ARCP clients expect. */
function currentMetrics (record: AgentRecord) {
  const metrics = showMetrics(record)
  const rounded = (value: number) => Math.round(value * 1000) / 1000
  return {
    success_rate: rounded(metrics.success_rate),
    avg_response_time: rounded(metrics.avg_response_time),
    total_requests: metrics.total_requests,
    reputation_score: rounded(metrics.reputation_score),
    last_active: metrics.last_active
  }
}

/** `/agents/:id/metrics` and `/agents/report-metrics/:id`: the metrics that agents report. A report renews the lease. */
const agentMetricsRoutes: FastifyPluginAsyncTypebox<{ registry: Registry }> = async function agentMetricsRoutes (scope, { registry }) {
  const requireAgent = scope.agentRegistryGuard({ takes: ['agent', 'admin'], level: 'agent' })

  scope.post('/:id/metrics', {
    schema: { tags, summary: 'Report the metrics of an agent', params: IdParams, body: Update, response: answers(MetricsAnswer) },
    preValidation: requireAgent,
    validatorCompiler: parseBody(parseMetrics)
  }, async function reportMetrics (request) {
    const { params: { id }, body } = request
    const record = await registry.report({ ...heartbeatOf(id, assertSelf(request, id)), update: body })
    return { status: 'success' as const, message, metrics: showMetrics(record) }
  })

  scope.get('/:id/metrics', {
    schema: { tags, summary: 'Get the metrics of an agent', params: IdParams, response: answers(AgentMetrics) }, preValidation: requireAgent
  }, async function getMetrics (request) {
    const { id } = request.params
    assertSelf(request, id)
    const entry = registry.replica.get(id)
    if (!entry) throw problem('agent-not-found', `Agent ${id} not found`)
    return showMetrics(entry.record)
  })

  for (const url of ['/report-metrics/:id', '/:id/metrics/compat']) {
    scope.post(url, {
      schema: {
        tags,
        summary: 'Count one request of an agent',
        params: IdParams,
        querystring: ReportQuery,
        response: answers(ReportAnswer)
      },
      preValidation: requireAgent
    }, async function countRequest (request) {
      const { params: { id }, query } = request
      const update = { request: { responseTime: query.response_time, success: query.success } }
      const record = await registry.report({ ...heartbeatOf(id, assertSelf(request, id)), update })
      return { status: 'success' as const, message, current_metrics: currentMetrics(record) }
    })
  }
}

export default fp(agentMetricsRoutes, {
  name: 'agent-registry-agent-metrics-routes',
  encapsulate: true,
  dependencies: ['agent-registry-auth']
})
