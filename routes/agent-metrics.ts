import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { parseBody } from '../plugins/validation.js'
import type { Core } from '../src/core.js'
import { problem, validationFailed, type FieldError } from '../src/errors.js'
import { assertSelf, guard, signOf } from '../src/http/guard.js'
import { coerce } from '../src/lib/coerce.js'
import { isObject } from '../src/lib/json.js'
import { AgentMetrics } from '../src/protocol/schemas/agent.js'
import { answers, IdParams, MetricsAnswer, MetricsBody, ReportAnswer, ReportQuery } from '../src/protocol/schemas/rest.js'
import { fieldErrors } from '../src/protocol/validation.js'
import { showMetrics } from '../src/registry/render.js'
import type { MetricsUpdate, MetricValues, RequestReport } from '../src/storage/agent-metrics.js'
import type { AgentRecord } from '../src/storage/agent-store.js'

const tags = ['agents']
const message = 'Metrics updated successfully'

/** `/agents/:id/metrics` and the paths of existing clients: metrics that agents report. A report counts as a heartbeat. */
const agentMetricsRoutes: FastifyPluginAsyncTypebox<{ core: Core }> = async function agentMetricsRoutes (scope, { core: { registry, authority } }) {
  const agent = guard(authority, { takes: ['agent', 'admin'], level: 'agent' })

  scope.post('/:id/metrics', {
    schema: { tags, summary: 'Stores metrics that an agent reports', params: IdParams, body: MetricsBody, response: answers(MetricsAnswer) },
    preValidation: agent,
    validatorCompiler: parseBody(parseMetrics)
  }, async function reportMetrics ({ agentRegistryPrincipal, params: { id }, body }) {
    assertSelf(agentRegistryPrincipal!, id)
    const record = await registry.report({ ...signOf(id, agentRegistryPrincipal!), update: body as MetricsUpdate })
    return { status: 'success' as const, message, metrics: showMetrics(record) }
  })

  scope.get('/:id/metrics', {
    schema: { tags, summary: 'The metrics of an agent', params: IdParams, response: answers(AgentMetrics) }, preValidation: agent
  }, async function getMetrics ({ agentRegistryPrincipal, params: { id } }) {
    assertSelf(agentRegistryPrincipal!, id)
    const entry = registry.replica.get(id)
    if (!entry) throw problem('agent-not-found', `Agent ${id} not found`)
    return showMetrics(entry.record)
  })

  for (const url of ['/report-metrics/:id', '/:id/metrics/compat']) {
    scope.post(url, {
      schema: { tags, summary: 'Counts one request of an agent', params: IdParams, querystring: ReportQuery, response: answers(ReportAnswer) },
      preValidation: agent
    }, async function countRequest ({ agentRegistryPrincipal, params: { id }, query }) {
      assertSelf(agentRegistryPrincipal!, id)
      const request = { responseTime: query.response_time, success: query.success }
      const record = await registry.report({ ...signOf(id, agentRegistryPrincipal!), update: { request } })
      return { status: 'success' as const, message, current_metrics: currentMetrics(record) }
    })
  }
}

/** Rates and times with three decimals, as existing clients expect them. */
function currentMetrics (record: AgentRecord) {
  const { success_rate: rate, avg_response_time: time, total_requests: total, reputation_score: reputation, last_active: active } = showMetrics(record)
  const rounded = (value: number) => Math.round(value * 1000) / 1000
  return { success_rate: rounded(rate), avg_response_time: rounded(time), total_requests: total, reputation_score: rounded(reputation), last_active: active }
}

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

export default agentMetricsRoutes
