import t, { type Test } from 'tap'
import type { AgentRegistryOptions } from '../../../src/index.js'
import { build, serve, type Client, type Harness, type Json } from '../../support/harness.js'
import { nextWhere } from '../sockets/helper.js'
import { answersTo, dashboards, entryOf } from '../sockets/dashboard-helper.js'

// Response times are seconds from the report to the alert, rates are shares, resources are percent.

const dashboardWs = { maxConnections: 50, intervalMs: 100 }
type Rules = NonNullable<NonNullable<AgentRegistryOptions['dashboard']>['alertRules']>

async function watched (t: Test, alertRules: Rules = []): Promise<{ registry: Harness, client: Client }> {
  const registry = await build(t, { dashboardWs, dashboard: { alertRules } })
  const [client] = await dashboards(registry, 1)
  return { registry, client: client! }
}

/** All alerts of these types that were ever raised. */
async function raised (client: Client, ...types: string[]): Promise<Json[]> {
  const frames = await answersTo(client, { type: 'refresh_request' })
  const stored: Json[] = frames.find(frame => frame.type === 'alert')?.data.alerts ?? []
  return stored.filter(alert => types.includes(alert.type))
}

type Step = [values: { avg_response_time?: number, error_rate?: number, total_requests?: number }, raises?: [severity: string, message: string, threshold: number]]

/** Ever worse reports of one agent, each with the alert that it raises: what was told before is not told again. */
const worse: Record<string, Step[]> = {
  performance: [
    [{ avg_response_time: 0.02 }], [{ avg_response_time: 0.95 }], [{ avg_response_time: 1 }],
    [{ avg_response_time: 1.2 }, ['info', 'Average response time is 1.2 s', 1]], [{ avg_response_time: 1.5 }],
    [{ avg_response_time: 1.7 }, ['warning', 'Average response time is 1.7 s', 1.5]], [{ avg_response_time: 2 }],
    [{ avg_response_time: 2.5 }, ['critical', 'Average response time is 2.5 s', 2]], [{ avg_response_time: 3600 }]
  ],
  error_rate: [
    [{ error_rate: 1, total_requests: 10 }], [{ error_rate: 0, total_requests: 20 }], [{ error_rate: 0.05 }],
    [{ error_rate: 0.06 }, ['info', 'Error rate is 6 %', 0.05]], [{ error_rate: 0.1 }],
    [{ error_rate: 0.11 }, ['info', 'Error rate is 11 %', 0.1]], [{ error_rate: 0.15 }],
    [{ error_rate: 0.16 }, ['warning', 'Error rate is 16 %', 0.15]], [{ error_rate: 0.2 }],
    [{ error_rate: 0.21 }, ['critical', 'Error rate is 21 %', 0.2]], [{ error_rate: 1 }]
  ]
}

for (const [type, steps] of Object.entries(worse)) {
  t.test(`${type}: thresholds are in the unit of the report, and just reaching one raises nothing`, async t => {
    const { registry, client } = await watched(t)
    const token = await registry.agent()
    const told: Json[] = []
    for (const [values, raises] of steps) {
      t.match(await registry.post('/agents/agent-one/metrics', { token, body: values }), { status: 200 }, 'reported')
      await nextWhere(client, 'monitoring', ({ data }) => Object.entries(values).every(([name, value]) => data[name] === value))
      if (raises) told.unshift(raises)
      const alerts = await raised(client, type)
      t.strictSame(alerts.map(({ severity, message, details: { threshold } }) => [severity, message, threshold]), told, JSON.stringify(values))
    }
  })
}

t.test('reports of single requests reach the alerts as seconds and shares', async t => {
  const { registry, client } = await watched(t)
  const token = await registry.agent()
  for (let index = 0; index < 12; index++) await registry.post(`/agents/report-metrics/agent-one?response_time=1.25&success=${index < 11}`, { token })
  await nextWhere(client, 'monitoring', ({ data }) => data.total_requests === 12)
  t.strictSame((await raised(client, 'performance', 'error_rate')).map(({ message, details }) => [message, details]), [
    ['Error rate is 8.3 %', { error_rate: 0.083, threshold: 0.05 }], ['Average response time is 1.25 s', { response_time: 1.25, threshold: 1 }]
  ])
})

t.test('a time in milliseconds is refused where it cannot be seconds, and raises nothing', async t => {
  const { registry, client } = await watched(t)
  const token = await registry.agent()
  t.equal((await registry.post('/agents/report-metrics/agent-one?response_time=4000', { token })).status, 422)
  t.match(await registry.post('/agents/agent-one/metrics', { token, body: { avg_response_time: 4000 } }), { status: 422, body: { errors: [{ path: '/avg_response_time' }] } })
  await nextWhere(client, 'monitoring', ({ data }) => data.agent_count === 1)
  await nextWhere(client, 'monitoring', ({ data }) => data.avg_response_time === 0)
  t.strictSame(await raised(client, 'performance'), [])
})

t.test('the own requests of the registry are measured in seconds and shares too', async t => {
  const own = (id: string, metric: 'registry_avg_response_time' | 'registry_error_rate', threshold: number) => ({ id, type: id, metric, threshold, message: '{value} over {threshold}' })
  const { registry, client } = await watched(t, [
    own('slow', 'registry_avg_response_time', 0.1), own('slow_in_ms', 'registry_avg_response_time', 30),
    own('failing', 'registry_error_rate', 0.2), own('failing_in_percent', 'registry_error_rate', 1)
  ])
  const slow = await serve(t, (_request, response) => { setTimeout(() => response.writeHead(500).end(), 700) })
  await registry.join('slow-one', { endpoint: slow })
  t.strictSame(await raised(client, 'slow', 'failing'), [])
  const body = { user_id: 'ann', user_endpoint: 'https://ann.example' }
  const calls = await Promise.all(Array.from({ length: 12 }, () => registry.post('/public/connect/slow-one', { body })))
  const refused = calls.filter(({ status }) => status === 502).length
  t.ok(refused > 0)
  const { data } = await nextWhere(client, 'monitoring', frame => frame.data.registry.total_requests > 12)
  await client.next('logs')
  const { avg_response_time: seconds, error_rate: share } = data.registry
  t.ok(seconds > 0.1 && seconds < 30, `${seconds} s`)
  t.ok(share > 0.2 && share < 1, `${share}`)
  const alerts = await raised(client, 'slow', 'slow_in_ms', 'failing', 'failing_in_percent')
  t.strictSame(alerts.map(({ type }) => type).sort(), ['failing', 'slow'])
  t.match(alerts.find(({ type }) => type === 'slow').details, { metric: 'registry_avg_response_time', threshold: 0.1 })
})

t.test('resources are percent: what is over 0 is told, what is over 100 cannot be', async t => {
  const rule = (id: string, threshold: number) => ({ id, type: id, metric: 'memory' as const, threshold, message: 'Memory {value}' })
  const { client } = await watched(t, [rule('some_memory', 0), rule('all_memory', 100)])
  const { data } = await nextWhere(client, 'alert', frame => frame.data.alerts.some((alert: Json) => alert.type === 'some_memory'))
  const { details } = data.alerts.find((alert: Json) => alert.type === 'some_memory')
  t.ok(details.value > 1 && details.value <= 100, `${details.value} %`)
  t.strictSame(await raised(client, 'all_memory'), [])
})

t.test('a rule waits as many milliseconds as it says', async t => {
  const rule = { id: 'lonely', type: 'lonely', metric: 'agents_total' as const, comparison: '=' as const, threshold: 1, forMs: 800, severity: 'critical' as const, message: 'Only {value} agent' }
  const { registry, client } = await watched(t, [rule])
  const began = Date.now()
  await registry.join('first-one')
  const { data: { alerts: [alert] } } = await nextWhere(client, 'alert', frame => frame.data.alerts[0].type === 'lonely')
  t.ok(Date.parse(alert.timestamp) - began >= 800, `${Date.parse(alert.timestamp) - began} ms`)
  t.match(await entryOf(client, 'Only 1 agent'), { level: 'CRIT' })
})
