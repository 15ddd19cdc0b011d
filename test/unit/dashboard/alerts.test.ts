import t, { type Test } from 'tap'
import { type AlertRule, alertSnapshot, defaultAlertRules, resolveAlertRules } from '../../../src/dashboard/alert-rules.js'
import { type Alert, Alerts } from '../../../src/dashboard/alerts.js'
import { frameText } from '../../../src/dashboard/frames.js'
import { embeddedStorage, healthData, noAiServices } from '../../../src/dashboard/health.js'
import { monitoringData } from '../../../src/dashboard/monitoring.js'
import { AlertFrame } from '../../../src/protocol/frames/dashboard.js'
import type { AlertRuleInput } from '../../../src/protocol/schemas/dashboard.js'
import { fieldErrors } from '../../../src/protocol/validation.js'
import type { AgentRegistryOptions } from '../../../src/index.js'
import { build, type Client, type Harness, type Json, serve } from '../../support/harness.js'
import { fleet, manualClock, metrics, processUse, snapshot, start } from './helper.js'
import { nextWhere } from '../sockets/helper.js'
import { answersTo, dashboards, entryOf } from '../sockets/dashboard-helper.js'

function buildAlerts (options: { rules?: readonly AlertRule[], capacity?: number } = {}) {
  const now = manualClock()
  return { now, alerts: new Alerts({ now, ...options }) }
}
const brief = (alerts: readonly Alert[]) => alerts.map(({ type, severity }) => `${type} ${severity}`)
const minutes = 60_000

t.test('alerts: the default rules, the most severe of each type', async t => {
  const table: Array<[values: Parameters<typeof snapshot>[0], raised: string[]]> = [
    [{}, []],
    [{ avg_response_time: 1 }, []], [{ avg_response_time: 1.01 }, ['performance info']],
    [{ avg_response_time: 1.6 }, ['performance warning']],
    [{ avg_response_time: 2.01 }, ['performance critical']], [{ avg_response_time: undefined }, []],
    [{ error_rate: 0.06 }, ['error_rate info']], [{ error_rate: 0.16 }, ['error_rate warning']],
    [{ error_rate: 0.21 }, ['error_rate critical']], [{ error_rate: undefined }, []],
    [{ agents_condition: 'none_alive' }, ['agent_connectivity critical']],
    [{ agents_condition: 'few_alive' }, ['agent_connectivity critical']],
    [{ agents_condition: 'less_than_half_alive' }, ['agent_connectivity warning']],
    [{ agents_condition: 'some_dead' }, ['agent_connectivity info']],
    [{ agents_condition: 'a_tenth_dead' }, ['agent_connectivity info']],
    [{ agents_condition: 'no_agents' }, ['agent_connectivity warning']],
    [{ storage_status: 'error' }, ['storage critical']], [{ storage_status: 'degraded' }, ['storage warning']],
    [{ ai_status: 'degraded' }, ['ai_services info']], [{ system_status: 'unhealthy' }, ['system_health critical']],
    [{
      cpu: 71, memory: 76, storage: 81, network: 61
    }, ['resource_cpu info', 'resource_memory info', 'resource_storage info', 'resource_network info']],
    [{
      cpu: 81, memory: 86, storage: 86, network: 81
    }, ['resource_cpu warning', 'resource_memory warning', 'resource_storage warning', 'resource_network warning']],
    [{
      cpu: 91, memory: 96, storage: 96, network: 100
    }, ['resource_cpu critical', 'resource_memory critical', 'resource_storage critical', 'resource_network warning']]
  ]
  for (const [values, raised] of table) {
    t.same(brief(buildAlerts().alerts.evaluate(snapshot(values))).sort(), raised.sort(), JSON.stringify(values))
  }
})

t.test('alerts: an alert is complete and identical when live and when stored', async t => {
  const { alerts } = buildAlerts()
  const [alert] = alerts.evaluate(snapshot({ cpu: 95.678 }, { resource_cpu: { cpu_percent: 95.678 } }))
  t.match(alert, {
    id: /^[0-9a-f-]{36}$/,
    title: 'Resource cpu',
    message: 'CPU usage is 95.678 %',
    severity: 'critical',
    type: 'resource_cpu',
    timestamp: '2030-01-01T00:00:00.250Z',
    details: { cpu_percent: 95.678, threshold: 90 }
  })
  t.same(alerts.newest(), [alert])
  t.same(fieldErrors(AlertFrame, JSON.parse(frameText('alert', start, JSON.stringify(alerts.frame())))), [])
  t.match(buildAlerts().alerts.evaluate(snapshot({ error_rate: 0.2468 })), [{ message: 'Error rate is 24.7 %' }])
})

t.test('alerts: cooldowns depend on severity and outlast the cause', async t => {
  for (const [cpu, severity, cooldown] of [[95, 'critical', 5], [85, 'warning', 15], [75, 'info', 60]] as const) {
    const { now, alerts } = buildAlerts()
    const look = (value: number) => brief(alerts.evaluate(snapshot({ cpu: value })))
    t.same(look(cpu), [`resource_cpu ${severity}`])
    now.advance(5_000)
    t.same(look(cpu + 1), [], 'a drifting value is the same alert')
    t.same(look(10), [])
    t.same(look(cpu), [], 'an oscillating value is the same alert')
    now.advance(cooldown * minutes - 5_001)
    t.same(look(cpu), [])
    now.advance(1)
    t.same(look(cpu), [`resource_cpu ${severity}`])
    t.equal(alerts.size, 2)
  }
})

t.test('alerts: a higher severity raises at once, a lower one within the cooldown does not', async t => {
  const { now, alerts } = buildAlerts()
  const look = (cpu: number) => brief(alerts.evaluate(snapshot({ cpu })))
  t.same([look(75), look(85), look(95)].flat(), ['resource_cpu info', 'resource_cpu warning', 'resource_cpu critical'])
  now.advance(1_000)
  t.same([look(85), look(75), look(95)].flat(), [])
})

t.test('custom rules', async t => {
  const own: AlertRuleInput = {
    id: 'slow',
    type: 'registry',
    metric: 'registry_avg_response_time',
    threshold: 0.5,
    forMs: 10_000,
    message: 'The registry takes {value} s (over {threshold}), {unknown}'
  }

  t.test('custom rules: members have defaults, and a rule holds for its minimum duration', async t => {
    const { now, alerts } = buildAlerts({ rules: resolveAlertRules([own]) })
    const look = (value: number) => alerts.evaluate(snapshot({ registry_avg_response_time: value }))
    t.same(look(0.6), [])
    now.advance(9_999)
    t.same(look(0.5), [], 'an interruption')
    t.same(look(0.6), [])
    now.advance(10_000)
    t.match(look(0.75), [{
      type: 'registry',
      title: 'Registry',
      severity: 'warning',
      message: 'The registry takes 0.75 s (over 0.5), {unknown}',
      details: { metric: 'registry_avg_response_time', value: 0.75, threshold: 0.5 }
    }])
  })

  t.test('custom rules: each operator compares', async t => {
    const raises = (comparison: '>' | '>=' | '<' | '<=' | '=', threshold: number, agents: number) => {
      const rule: AlertRuleInput = {
        id: 'r', type: 'few', metric: 'agents_total', comparison, threshold, severity: 'info', cooldownMs: 0, title: 'Few', message: 'm'
      }
      return buildAlerts({ rules: resolveAlertRules([rule]) }).alerts.evaluate(snapshot({ agents_total: agents })).length === 1
    }
    t.same(
      [raises('>', 2, 3), raises('>=', 2, 2), raises('<', 2, 1), raises('<=', 2, 2), raises('=', 2, 2)], [true, true, true, true, true]
    )
    t.same(
      [raises('>', 2, 2), raises('>=', 2, 1), raises('<', 2, 2), raises('<=', 2, 3), raises('=', 2, 3)], [false, false, false, false, false]
    )
  })

  t.test('custom rules: a rule replaces the default of the same id', async t => {
    const rules = resolveAlertRules([{ ...own, id: 'resource_cpu.90' }])
    t.equal(rules.length, defaultAlertRules.length)
    t.notOk(rules.some(rule => rule.type === 'resource_cpu' && rule.severity === 'critical'))
  })

  t.test('custom rules: text is not ordered', async t => {
    t.throws(() => resolveAlertRules([{ ...own, metric: 'ai_status', threshold: 'x' }]), {
      code: 'AGENT_REGISTRY_INVALID_OPTIONS', message: /alertRules\.0\.threshold: text/
    })
    t.doesNotThrow(() => resolveAlertRules([{ ...own, metric: 'ai_status', threshold: 'x', comparison: '=' }]))
  })

  t.test('custom rules: an invalid rule stops the start', async t => {
    for (const [changes, named] of [
      [{ metric: 'moon' }, 'metric'], [{ threshold: null }, 'threshold'], [{ extra: 1 }, 'extra'], [{ forMs: -1 }, 'forMs'],
      [{ message: '' }, 'message']
    ] as const) {
      t.throws(() => resolveAlertRules([own, { ...own, ...changes }]), {
        code: 'AGENT_REGISTRY_INVALID_OPTIONS', message: new RegExp(`alertRules\\.1\\.${named}`)
      })
    }
  })

  t.test('custom rules: ids of the defaults are unique', async t => {
    t.equal(new Set(defaultAlertRules.map(rule => rule.id)).size, defaultAlertRules.length)
  })
})

t.test('dashboard alerts', async t => {
  t.test('dashboard alerts: alerts are normalised', async t => {
    const { alerts } = buildAlerts()
    const [alert] = alerts.add({
      id: 5,
      message: ' Disk is full ',
      severity: 'DANGER',
      type: 'Disk_Space',
      timestamp: '2029-12-31T23:00:00+01:00',
      details: { disk: 'sda', token: 'secret', nested: {} }
    })
    t.strictSame({ ...alert, id: '' }, {
      id: '',
      title: 'Disk space',
      message: 'Disk is full',
      severity: 'critical',
      type: 'disk_space',
      timestamp: '2029-12-31T22:00:00.000Z',
      details: { disk: 'sda' }
    })
    t.match(alert!.id, /^[0-9a-f-]{36}$/)
    t.match(alerts.add({ title: 'Only a title' }), [{
      title: 'Only a title', message: 'Only a title', severity: 'info', type: 'general', timestamp: '2030-01-01T00:00:00.250Z', details: {}
    }])
    t.match(alerts.add({ message: 'untyped' }), [{ title: 'Alert', type: 'general' }])
    t.match(alerts.add({ message: 'a', type: 'warning' }), [{ severity: 'warning', type: 'warning', title: 'Warning' }])
    t.match(alerts.add({ message: 'b', severity: 'warn' }), [{ severity: 'warning' }])
    t.match(
      alerts.add({ message: 'c', severity: 'odd', timestamp: 'never' }), [{ severity: 'info', timestamp: '2030-01-01T00:00:00.250Z' }]
    )
    t.match(alerts.add({ message: '/x?token=abc <b>', title: 5 }), [{ message: '/x?token=[redacted] <b>' }])
  })

  t.test('dashboard alerts: empty alerts are not stored', async t => {
    const { alerts } = buildAlerts()
    for (const data of [null, 'text', [], {}, { message: '  ' }, { message: 5 }, { alerts: [null, {}] }, { alerts: 'x' }]) {
      t.same(alerts.add(data), [])
    }
    t.equal(alerts.size, 0)
  })

  t.test('dashboard alerts: echoes are not stored again', async t => {
    const { alerts } = buildAlerts()
    const [raised] = alerts.evaluate(snapshot({ cpu: 95 }))
    const echo = { ...raised, id: 1700000000000, title: 'Resource_cpu', timestamp: '2030-01-01T00:00:01.000Z' }
    t.same(alerts.add(echo), [])
    t.same(alerts.add({ alerts: [echo, { ...echo, message: 'another' }, { ...echo, message: 'another' }] }).length, 1)
    t.equal(alerts.size, 2)
  })

  t.test('dashboard alerts: one frame carries at most fifty', async t => {
    const { alerts } = buildAlerts()
    t.equal(alerts.add({ alerts: Array.from({ length: 60 }, (_, n) => ({ message: String(n) })) }).length, 50)
  })
})

t.test('alerts: stored alerts are bounded, newest first, and can be cleared', async t => {
  const { alerts } = buildAlerts({ capacity: 2 })
  for (const message of ['one', 'two', 'three']) alerts.add({ message })
  t.same(alerts.frame().alerts.map(alert => alert.message), ['three', 'two'])
  t.same(alerts.newest(1).map(alert => alert.message), ['three'])
  t.equal(alerts.add({ message: 'one' }).length, 1, 'an evicted alert may be stored again')
  alerts.clear()
  t.same(alerts.frame(), { alerts: [] })
  t.equal(alerts.add({ message: 'one' }).length, 1)
})

t.test('alerts: a repeated alert is forgotten only with its last copy', async t => {
  const { now, alerts } = buildAlerts({ capacity: 2 })
  for (let n = 0; n < 3; n++) {
    t.equal(alerts.evaluate(snapshot({ cpu: 95 })).length, 1)
    now.advance(5 * minutes)
  }
  t.same(alerts.add({ type: 'resource_cpu', message: 'CPU usage is 95 %' }), [])
})

t.test('alerts: the rules evaluate a snapshot of the frames', async t => {
  const requests = (total: number) => ({ total_requests: total, avg_response_time: 0.1, error_rate: 0.5 })
  const resources = { cpu: 1, memory: 2, network: 3, storage: 4 }
  function look (total: number, dead: number, reported = 0, ours = 0) {
    const replica = fleet(total, { dead })
    const monitoring = monitoringData({
      replica,
      metricsOf: ({ id }) => metrics(
        id, { total_requests: reported, error_rate: 0.5 }
      ),
      resources: () => resources,
      process: () => processUse,
      requests: () => requests(ours)
    })
    return alertSnapshot(
      monitoring, healthData({ storage: embeddedStorage, aiServices: noAiServices, agents: () => ({ total, active: total - dead }) })
    )
  }
  t.match(look(0, 0).values, {
    avg_response_time: undefined,
    error_rate: undefined,
    registry_error_rate: undefined,
    agents_ratio: undefined,
    agents_condition: 'no_agents',
    storage_status: 'healthy',
    system_status: 'healthy',
    ...resources
  })
  t.match(look(1, 0, 11, 11).values, {
    avg_response_time: 0, error_rate: 0.5, registry_error_rate: 0.5, agents_ratio: 1, agents_condition: 'fine'
  })
  t.equal(look(1, 0, 10, 10).values.error_rate, undefined, 'ten requests raise nothing')
  const conditions: Array<[total: number, dead: number, condition: string]> = [
    [1, 1, 'none_alive'], [2, 2, 'none_alive'], [2, 1, 'some_dead'], [3, 2, 'less_than_half_alive'], [10, 9, 'few_alive'],
    [10, 2, 'a_tenth_dead'], [10, 1, 'fine']
  ]
  for (const [total, dead, condition] of conditions) {
    t.equal(look(total, dead).values.agents_condition, condition, `${dead} of ${total} dead`)
  }
  const { alerts } = buildAlerts()
  t.match(alerts.evaluate(look(2, 2)), [
    {
      type: 'agent_connectivity',
      title: 'Agent connectivity',
      message: 'No active agents: all 2 are dead',
      details: {
        total_agents: 2, active_agents: 0
      }
    },
    { type: 'system_health', message: 'System health is unhealthy: No active agents available', details: { status: 'unhealthy' } }
  ])
  const failed = healthData({ storage: embeddedStorage, aiServices: noAiServices, agents: () => { throw new Error('no figures') } })
  t.equal(alertSnapshot(monitoringData(
    { replica: fleet(0), metricsOf: () => null, resources: () => resources, process: () => processUse, requests: () => requests(0) }
  ), failed).values.agents_condition, 'unknown')
})

// Response times are seconds from report to alert, rates are shares, resources are percentages.

const dashboardWs = { maxConnections: 50, intervalMs: 100 }
type Rules = NonNullable<NonNullable<AgentRegistryOptions['dashboard']>['alertRules']>

async function watched (t: Test, alertRules: Rules = []): Promise<{ registry: Harness, client: Client }> {
  const registry = await build(t, { dashboardWs, dashboard: { alertRules } })
  const [client] = await dashboards(registry, 1)
  return { registry, client: client! }
}

/** All alerts of these types so far. */
async function raised (client: Client, ...types: string[]): Promise<Json[]> {
  const frames = await answersTo(client, { type: 'refresh_request' })
  const stored: Json[] = frames.find(frame => frame.type === 'alert')?.data.alerts ?? []
  return stored.filter(alert => types.includes(alert.type))
}

type Step = [values: {
  avg_response_time?: number
  error_rate?: number
  total_requests?: number
}, raises?: [severity: string, message: string, threshold: number]]

/** Reports of one agent with increasing values, each with its alert: a repeated severity raises none. */
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
  t.test(`${type}: thresholds use the unit of the report, and a value at the threshold raises nothing`, async t => {
    const { registry, client } = await watched(t)
    const token = await registry.agent()
    const received: Json[] = []
    for (const [values, raises] of steps) {
      t.match(await registry.post('/agents/agent-one/metrics', { token, body: values }), { status: 200 }, 'reported')
      await nextWhere(client, 'monitoring', ({ data }) => Object.entries(values).every(([name, value]) => data[name] === value))
      if (raises) received.unshift(raises)
      const alerts = await raised(client, type)
      t.strictSame(
        alerts.map(({ severity, message, details: { threshold } }) => [severity, message, threshold]), received, JSON.stringify(values)
      )
    }
  })
}

t.test('alerts: reports of single requests count in seconds and as rates', async t => {
  const { registry, client } = await watched(t)
  const token = await registry.agent()
  for (let index = 0; index < 12; index++) {
    await registry.post(`/agents/report-metrics/agent-one?response_time=1.25&success=${index < 11}`, { token })
  }
  await nextWhere(client, 'monitoring', ({ data }) => data.total_requests === 12)
  t.strictSame((await raised(client, 'performance', 'error_rate')).map(({ message, details }) => [message, details]), [
    ['Error rate is 8.3 %', { error_rate: 0.083, threshold: 0.05 }],
    ['Average response time is 1.25 s', { response_time: 1.25, threshold: 1 }]
  ])
})

t.test('alerts: a time in milliseconds is refused where seconds are required, and raises nothing', async t => {
  const { registry, client } = await watched(t)
  const token = await registry.agent()
  t.equal((await registry.post('/agents/report-metrics/agent-one?response_time=4000', { token })).status, 422)
  t.match(await registry.post('/agents/agent-one/metrics', { token, body: { avg_response_time: 4000 } }), {
    status: 422, body: { errors: [{ path: '/avg_response_time' }] }
  })
  await nextWhere(client, 'monitoring', ({ data }) => data.agent_count === 1)
  await nextWhere(client, 'monitoring', ({ data }) => data.avg_response_time === 0)
  t.strictSame(await raised(client, 'performance'), [])
})

t.test('alerts: the registry\'s own requests are measured in seconds and as rates too', async t => {
  const own = (id: string, metric: 'registry_avg_response_time' | 'registry_error_rate', threshold: number) =>
    ({ id, type: id, metric, threshold, message: '{value} over {threshold}' })
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

t.test('alerts: resources are percentages, positive values are reported, and none exceeds 100', async t => {
  const rule = (id: string, threshold: number) => ({ id, type: id, metric: 'memory' as const, threshold, message: 'Memory {value}' })
  const { client } = await watched(t, [rule('some_memory', 0), rule('all_memory', 100)])
  const { data } = await nextWhere(client, 'alert', frame => frame.data.alerts.some((alert: Json) => alert.type === 'some_memory'))
  const { details } = data.alerts.find((alert: Json) => alert.type === 'some_memory')
  t.ok(details.value > 1 && details.value <= 100, `${details.value} %`)
  t.strictSame(await raised(client, 'all_memory'), [])
})

t.test('alerts: the duration of a rule is in milliseconds', async t => {
  const rule = {
    id: 'lonely',
    type: 'lonely',
    metric: 'agents_total' as const,
    comparison: '=' as const,
    threshold: 1,
    forMs: 800,
    severity: 'critical' as const,
    message: 'Only {value} agent'
  }
  const { registry, client } = await watched(t, [rule])
  const began = Date.now()
  await registry.join('first-one')
  const { data: { alerts: [alert] } } = await nextWhere(client, 'alert', frame => frame.data.alerts[0].type === 'lonely')
  t.ok(Date.parse(alert.timestamp) - began >= 800, `${Date.parse(alert.timestamp) - began} ms`)
  t.match(await entryOf(client, 'Only 1 agent'), { level: 'CRIT' })
})
