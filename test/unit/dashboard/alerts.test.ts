import t from 'tap'
import { alertSnapshot, defaultAlertRules, resolveAlertRules, type AlertRule } from '../../../src/dashboard/alert-rules.js'
import { Alerts, type Alert } from '../../../src/dashboard/alerts.js'
import { frameText } from '../../../src/dashboard/frames.js'
import { embeddedStorage, healthData, noAiServices } from '../../../src/dashboard/health.js'
import { monitoringData } from '../../../src/dashboard/monitoring.js'
import { AlertFrame } from '../../../src/protocol/frames/dashboard.js'
import type { AlertRuleInput } from '../../../src/protocol/schemas/dashboard.js'
import { fieldErrors } from '../../../src/protocol/validation.js'
import { fleet, manualClock, metrics, processUse, snapshot, start } from './helper.js'

function build (options: { rules?: readonly AlertRule[], capacity?: number } = {}) {
  const now = manualClock()
  return { now, alerts: new Alerts({ now, ...options }) }
}
const brief = (alerts: readonly Alert[]) => alerts.map(({ type, severity }) => `${type} ${severity}`)
const minutes = 60_000

t.test('the default rules, the most severe of each type', async t => {
  const table: Array<[values: Parameters<typeof snapshot>[0], raised: string[]]> = [
    [{}, []],
    [{ avg_response_time: 1 }, []], [{ avg_response_time: 1.01 }, ['performance info']], [{ avg_response_time: 1.6 }, ['performance warning']],
    [{ avg_response_time: 2.01 }, ['performance critical']], [{ avg_response_time: undefined }, []],
    [{ error_rate: 0.06 }, ['error_rate info']], [{ error_rate: 0.16 }, ['error_rate warning']], [{ error_rate: 0.21 }, ['error_rate critical']], [{ error_rate: undefined }, []],
    [{ agents_condition: 'none_alive' }, ['agent_connectivity critical']], [{ agents_condition: 'few_alive' }, ['agent_connectivity critical']],
    [{ agents_condition: 'less_than_half_alive' }, ['agent_connectivity warning']], [{ agents_condition: 'some_dead' }, ['agent_connectivity info']],
    [{ agents_condition: 'a_tenth_dead' }, ['agent_connectivity info']], [{ agents_condition: 'no_agents' }, ['agent_connectivity warning']],
    [{ storage_status: 'error' }, ['storage critical']], [{ storage_status: 'degraded' }, ['storage warning']],
    [{ ai_status: 'degraded' }, ['ai_services info']], [{ system_status: 'unhealthy' }, ['system_health critical']],
    [{ cpu: 71, memory: 76, storage: 81, network: 61 }, ['resource_cpu info', 'resource_memory info', 'resource_storage info', 'resource_network info']],
    [{ cpu: 81, memory: 86, storage: 86, network: 81 }, ['resource_cpu warning', 'resource_memory warning', 'resource_storage warning', 'resource_network warning']],
    [{ cpu: 91, memory: 96, storage: 96, network: 100 }, ['resource_cpu critical', 'resource_memory critical', 'resource_storage critical', 'resource_network warning']]
  ]
  for (const [values, raised] of table) t.same(brief(build().alerts.evaluate(snapshot(values))).sort(), raised.sort(), JSON.stringify(values))
})

t.test('an alert is complete, and the same live and stored', async t => {
  const { alerts } = build()
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
  t.match(build().alerts.evaluate(snapshot({ error_rate: 0.2468 })), [{ message: 'Error rate is 24.7 %' }])
})

t.test('cooldowns by severity, which outlive the cause', async t => {
  for (const [cpu, severity, cooldown] of [[95, 'critical', 5], [85, 'warning', 15], [75, 'info', 60]] as const) {
    const { now, alerts } = build()
    const look = (value: number) => brief(alerts.evaluate(snapshot({ cpu: value })))
    t.same(look(cpu), [`resource_cpu ${severity}`])
    now.advance(5_000)
    t.same(look(cpu + 1), [], 'a value that drifts is the same alert')
    t.same(look(10), [])
    t.same(look(cpu), [], 'a value that swings is the same alert')
    now.advance(cooldown * minutes - 5_001)
    t.same(look(cpu), [])
    now.advance(1)
    t.same(look(cpu), [`resource_cpu ${severity}`])
    t.equal(alerts.size, 2)
  }
})

t.test('what gets worse is told at once, what gets better within the cooldown is not', async t => {
  const { now, alerts } = build()
  const look = (cpu: number) => brief(alerts.evaluate(snapshot({ cpu })))
  t.same([look(75), look(85), look(95)].flat(), ['resource_cpu info', 'resource_cpu warning', 'resource_cpu critical'])
  now.advance(1_000)
  t.same([look(85), look(75), look(95)].flat(), [])
})

t.test('rules of one\'s own', async t => {
  const own: AlertRuleInput = { id: 'slow', type: 'registry', metric: 'registry_avg_response_time', threshold: 0.5, forMs: 10_000, message: 'The registry takes {value} s (over {threshold}), {unknown}' }

  t.test('have defaults, and must apply for as long as they ask for', async t => {
    const { now, alerts } = build({ rules: resolveAlertRules([own]) })
    const look = (value: number) => alerts.evaluate(snapshot({ registry_avg_response_time: value }))
    t.same(look(0.6), [])
    now.advance(9_999)
    t.same(look(0.5), [], 'a break')
    t.same(look(0.6), [])
    now.advance(10_000)
    t.match(look(0.75), [{ type: 'registry', title: 'Registry', severity: 'warning', message: 'The registry takes 0.75 s (over 0.5), {unknown}', details: { metric: 'registry_avg_response_time', value: 0.75, threshold: 0.5 } }])
  })

  t.test('compare as they say', async t => {
    const raises = (comparison: '>' | '>=' | '<' | '<=' | '=', threshold: number, agents: number) => {
      const rule: AlertRuleInput = { id: 'r', type: 'few', metric: 'agents_total', comparison, threshold, severity: 'info', cooldownMs: 0, title: 'Few', message: 'm' }
      return build({ rules: resolveAlertRules([rule]) }).alerts.evaluate(snapshot({ agents_total: agents })).length === 1
    }
    t.same([raises('>', 2, 3), raises('>=', 2, 2), raises('<', 2, 1), raises('<=', 2, 2), raises('=', 2, 2)], [true, true, true, true, true])
    t.same([raises('>', 2, 2), raises('>=', 2, 1), raises('<', 2, 2), raises('<=', 2, 3), raises('=', 2, 3)], [false, false, false, false, false])
  })

  t.test('replace a default of the same id', async t => {
    const rules = resolveAlertRules([{ ...own, id: 'resource_cpu.90' }])
    t.equal(rules.length, defaultAlertRules.length)
    t.notOk(rules.some(rule => rule.type === 'resource_cpu' && rule.severity === 'critical'))
  })

  t.test('text has no order', async t => {
    t.throws(() => resolveAlertRules([{ ...own, metric: 'ai_status', threshold: 'x' }]), { code: 'AGENT_REGISTRY_INVALID_OPTIONS', message: /alertRules\.0\.threshold: text/ })
    t.doesNotThrow(() => resolveAlertRules([{ ...own, metric: 'ai_status', threshold: 'x', comparison: '=' }]))
  })

  t.test('a wrong one stops the start', async t => {
    for (const [changes, named] of [[{ metric: 'moon' }, 'metric'], [{ threshold: null }, 'threshold'], [{ extra: 1 }, 'extra'], [{ forMs: -1 }, 'forMs'], [{ message: '' }, 'message']] as const) {
      t.throws(() => resolveAlertRules([own, { ...own, ...changes }]), { code: 'AGENT_REGISTRY_INVALID_OPTIONS', message: new RegExp(`alertRules\\.1\\.${named}`) })
    }
  })

  t.test('ids of the defaults are unique', async t => {
    t.equal(new Set(defaultAlertRules.map(rule => rule.id)).size, defaultAlertRules.length)
  })
})

t.test('alerts that dashboards send', async t => {
  t.test('are normalised', async t => {
    const { alerts } = build()
    const [alert] = alerts.add({ id: 5, message: ' Disk is full ', severity: 'DANGER', type: 'Disk_Space', timestamp: '2029-12-31T23:00:00+01:00', details: { disk: 'sda', token: 'secret', nested: {} } })
    t.strictSame({ ...alert, id: '' }, { id: '', title: 'Disk space', message: 'Disk is full', severity: 'critical', type: 'disk_space', timestamp: '2029-12-31T22:00:00.000Z', details: { disk: 'sda' } })
    t.match(alert!.id, /^[0-9a-f-]{36}$/)
    t.match(alerts.add({ title: 'Only a title' }), [{ title: 'Only a title', message: 'Only a title', severity: 'info', type: 'general', timestamp: '2030-01-01T00:00:00.250Z', details: {} }])
    t.match(alerts.add({ message: 'untyped' }), [{ title: 'Alert', type: 'general' }])
    t.match(alerts.add({ message: 'a', type: 'warning' }), [{ severity: 'warning', type: 'warning', title: 'Warning' }])
    t.match(alerts.add({ message: 'b', severity: 'warn' }), [{ severity: 'warning' }])
    t.match(alerts.add({ message: 'c', severity: 'odd', timestamp: 'never' }), [{ severity: 'info', timestamp: '2030-01-01T00:00:00.250Z' }])
    t.match(alerts.add({ message: '/x?token=abc <b>', title: 5 }), [{ message: '/x?token=[redacted] <b>' }])
  })

  t.test('are not stored when they say nothing', async t => {
    const { alerts } = build()
    for (const data of [null, 'text', [], {}, { message: '  ' }, { message: 5 }, { alerts: [null, {}] }, { alerts: 'x' }]) t.same(alerts.add(data), [])
    t.equal(alerts.size, 0)
  })

  t.test('echoes are not stored again', async t => {
    const { alerts } = build()
    const [raised] = alerts.evaluate(snapshot({ cpu: 95 }))
    const echo = { ...raised, id: 1700000000000, title: 'Resource_cpu', timestamp: '2030-01-01T00:00:01.000Z' }
    t.same(alerts.add(echo), [])
    t.same(alerts.add({ alerts: [echo, { ...echo, message: 'another' }, { ...echo, message: 'another' }] }).length, 1)
    t.equal(alerts.size, 2)
  })

  t.test('one frame brings fifty at most', async t => {
    const { alerts } = build()
    t.equal(alerts.add({ alerts: Array.from({ length: 60 }, (_, n) => ({ message: String(n) })) }).length, 50)
  })
})

t.test('stored alerts are bounded, newest first, and can be cleared', async t => {
  const { alerts } = build({ capacity: 2 })
  for (const message of ['one', 'two', 'three']) alerts.add({ message })
  t.same(alerts.frame().alerts.map(alert => alert.message), ['three', 'two'])
  t.same(alerts.newest(1).map(alert => alert.message), ['three'])
  t.equal(alerts.add({ message: 'one' }).length, 1, 'what was forgotten may come again')
  alerts.clear()
  t.same(alerts.frame(), { alerts: [] })
  t.equal(alerts.add({ message: 'one' }).length, 1)
})

t.test('the same alert raised again is forgotten only with its last copy', async t => {
  const { now, alerts } = build({ capacity: 2 })
  for (let n = 0; n < 3; n++) {
    t.equal(alerts.evaluate(snapshot({ cpu: 95 })).length, 1)
    now.advance(5 * minutes)
  }
  t.same(alerts.add({ type: 'resource_cpu', message: 'CPU usage is 95 %' }), [])
})

t.test('a snapshot of what the frames show', async t => {
  const requests = (total: number) => ({ total_requests: total, avg_response_time: 0.1, error_rate: 0.5 })
  const resources = { cpu: 1, memory: 2, network: 3, storage: 4 }
  function look (total: number, dead: number, reported = 0, ours = 0) {
    const replica = fleet(total, { dead })
    const monitoring = monitoringData({ replica, metricsOf: ({ id }) => metrics(id, { total_requests: reported, error_rate: 0.5 }), resources: () => resources, process: () => processUse, requests: () => requests(ours) })
    return alertSnapshot(monitoring, healthData({ storage: embeddedStorage, aiServices: noAiServices, agents: () => ({ total, active: total - dead }) }))
  }
  t.match(look(0, 0).values, { avg_response_time: undefined, error_rate: undefined, registry_error_rate: undefined, agents_ratio: undefined, agents_condition: 'no_agents', storage_status: 'healthy', system_status: 'healthy', ...resources })
  t.match(look(1, 0, 11, 11).values, { avg_response_time: 0, error_rate: 0.5, registry_error_rate: 0.5, agents_ratio: 1, agents_condition: 'fine' })
  t.equal(look(1, 0, 10, 10).values.error_rate, undefined, 'ten requests say nothing')
  const conditions: Array<[total: number, dead: number, condition: string]> = [
    [1, 1, 'none_alive'], [2, 2, 'none_alive'], [2, 1, 'some_dead'], [3, 2, 'less_than_half_alive'], [10, 9, 'few_alive'], [10, 2, 'a_tenth_dead'], [10, 1, 'fine']
  ]
  for (const [total, dead, condition] of conditions) t.equal(look(total, dead).values.agents_condition, condition, `${dead} of ${total} dead`)
  const { alerts } = build()
  t.match(alerts.evaluate(look(2, 2)), [
    { type: 'agent_connectivity', title: 'Agent connectivity', message: 'No active agents: all 2 are dead', details: { total_agents: 2, active_agents: 0 } },
    { type: 'system_health', message: 'System health is unhealthy: No active agents available', details: { status: 'unhealthy' } }
  ])
  const failed = healthData({ storage: embeddedStorage, aiServices: noAiServices, agents: () => { throw new Error('no figures') } })
  t.equal(alertSnapshot(monitoringData({ replica: fleet(0), metricsOf: () => null, resources: () => resources, process: () => processUse, requests: () => requests(0) }), failed).values.agents_condition, 'unknown')
})
