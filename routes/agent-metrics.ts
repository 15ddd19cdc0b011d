import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { assertSelf, guard, signOf } from '../src/http/guard.js'
import { parseBody } from '../plugins/validation.js'
import { problem } from '../src/errors.js'
import type { Core } from '../src/core.js'
import { parseMetrics, showMetrics } from '../src/registry/agent-metrics.js'
import type { MetricsUpdate } from '../src/storage/agent-metrics.js'
import { AgentMetrics } from '../src/protocol/schemas/agent.js'
import { answers, IdParams, MetricsAnswer, MetricsBody, ReportAnswer, ReportQuery } from '../src/protocol/schemas/rest.js'
import type { AgentRecord } from '../src/storage/agent-store.js'

const tags = ['agents']
const message = 'Metrics updated successfully'

/** `/agents/:id/metrics` and its relatives: what agents report of themselves. A report is a sign of life. */
const agentMetricsRoutes: FastifyPluginAsyncTypebox<{ core: Core }> = async function agentMetricsRoutes (scope, { core: { registry, authority } }) {
  const agent = guard(authority, { takes: ['agent', 'admin'], level: 'agent' })

  scope.post('/:id/metrics', {
    schema: { tags, summary: 'What an agent reports of itself', params: IdParams, body: MetricsBody, response: answers(MetricsAnswer) },
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

/** Rates and times with three places, as existing clients know them. */
function currentMetrics (record: AgentRecord) {
  const { success_rate: rate, avg_response_time: time, total_requests: total, reputation_score: reputation, last_active: active } = showMetrics(record)
  const rounded = (value: number) => Math.round(value * 1000) / 1000
  return { success_rate: rounded(rate), avg_response_time: rounded(time), total_requests: total, reputation_score: rounded(reputation), last_active: active }
}

export default agentMetricsRoutes
