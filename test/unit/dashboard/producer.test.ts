import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { AgentsFrame, type DataFrameType } from '../../../src/dashboard/frames.js'
import { embeddedStorage, healthData, noAiServices } from '../../../src/dashboard/health.js'
import { monitoringData } from '../../../src/dashboard/monitoring.js'
import { checkerOf, fieldErrors } from '../../../src/protocol/validation.js'
import {
  dashboardClientFrames, dashboardServerFrames
} from '../../../src/protocol/frames/dashboard.js'
import { Alerts } from '../../../src/dashboard/alerts.js'
import { LogBuffer } from '../../../src/dashboard/logs.js'
import { FrameBuilder, FrameProducer, type FrameSources } from '../../../src/dashboard/producer.js'
import { UiSettings } from '../../../src/dashboard/dashboard.js'
import { ConfigAnswer, DashboardConfig } from '../../../src/protocol/schemas/dashboard.js'
import { fleet, manualClock, processUse } from './helper.js'

interface Sent { type: DataFrameType, text: string }

function build ({ intervalMs = 5_000, ...changes }: Partial<FrameSources> & { intervalMs?: number } = {}) {
  const now = manualClock()
  const replica = fleet(1)
  const state = { watchers: 1, cpu: 0, made: 0 }
  const sent: Sent[] = []
  const logs = new LogBuffer({ now })
  const alerts = new Alerts({ now })
  const frames = new FrameBuilder({
    now,
    monitoring () {
      state.made++
      const resources = { cpu: state.cpu, memory: 0, network: 0, storage: 0 }
      return monitoringData({
        replica,
        metricsOf: () => null,
        resources: () => resources,
        process: () => processUse,
        requests: () => ({
          total_requests: 0, avg_response_time: 0, error_rate: 0
        })
      })
    },
    health: () => healthData({ storage: embeddedStorage, aiServices: noAiServices, agents: () => ({ total: 1, active: 1 }) }),
    agents: () => new AgentsFrame({ replica }).data(),
    logs,
    alerts,
    ...changes
  })
  const broadcast = (type: DataFrameType, text: string) => { sent.push({ type, text }) }
  const producer = new FrameProducer({ now, intervalMs, frames, logs, watchers: () => state.watchers, broadcast })
  const types = () => sent.splice(0).map(({ type }) => type)
  return { now, state, sent, types, logs, alerts, frames, producer }
}

const all: DataFrameType[] = ['monitoring', 'health', 'agents', 'logs']

t.test('producer: without watchers it builds no frame', async t => {
  const { now, state, types, logs, producer } = build()
  state.watchers = 0
  for (let n = 0; n < 20; n++) {
    logs.add({ level: 'INFO', message: 'm', source: 's' })
    producer.tick()
    now.advance(1_000)
  }
  t.same([types(), state.made], [[], 0])
  state.watchers = 3
  producer.tick()
  t.same(types(), [], 'a new watcher already has its first frames')
  now.advance(4_000)
  producer.tick()
  t.same([types(), state.made], [all, 1])
})

t.test('producer: each frame is built once per interval, as one text for all', async t => {
  const { now, sent, types, producer } = build()
  for (let at = 0; at <= 10_000; at += 500) {
    producer.tick()
    now.advance(500)
  }
  t.same(sent.map(({ type }) => type), [...all, ...all])
  for (const { type, text } of sent) {
    const frame = JSON.parse(text) as { type: string, timestamp: string, data: object }
    t.match(frame, { type, data: Object })
    t.match(frame.timestamp, /^2030-01-01T00:00:(05|10)\.250Z$/)
    t.ok(dashboardServerFrames.some(schema => schema.properties.type.const === type && checkerOf(schema).Check(frame)), type)
  }
  types()
})

t.test('producer: new log entries are pushed once within a second', async t => {
  const { now, types, sent, logs, producer } = build({ maxLogsPerFrame: 2 })
  for (let n = 0; n < 5; n++) logs.add({ level: 'INFO', message: String(n), source: 's' })
  now.advance(500)
  producer.tick()
  t.match(
    sent.map(({ text }) => JSON.parse(text) as object), [{ type: 'logs', data: { count: 5, logs: [{ message: '4' }, { message: '3' }] } }]
  )
  t.same(types(), ['logs'])
  producer.tick()
  t.same(types(), [])
})

t.test('producer: all watchers receive new alerts, critical ones are logged, and a refresh removes none', async t => {
  const { now, state, sent, types, logs, alerts, frames, producer } = build()
  state.cpu = 95
  t.equal(frames.frame('alert'), null)
  for (const type of ['monitoring', 'health', 'agents', 'logs'] as const) t.match(JSON.parse(frames.frame(type)!), { type })
  t.equal(alerts.size, 0)
  now.advance(5_000)
  producer.tick()
  const alert = JSON.parse(sent.at(-1)!.text) as object
  t.match(alert, { type: 'alert', data: { alerts: [{ type: 'resource_cpu', severity: 'critical' }] } })
  t.match(sent.at(-2)!.text, /CPU usage is 95 %/)
  t.same(types(), [...all, 'alert'])
  t.match(logs.frame().logs, [{ level: 'CRIT', source: 'monitoring' }])
  t.same((JSON.parse(frames.frame('alert')!) as { data: object }).data, (alert as { data: object }).data)
  now.advance(5_000)
  producer.tick()
  t.same(types(), all, 'without new alerts there is no frame')
})

t.test('producer: critical alerts are logged by subject, others are not', async t => {
  const { now, logs, producer } = build({
    health: () => healthData({
      storage: () => ({
        redis: 'error', status: 'error'
      }),
      aiServices: () => ({ azure_openai: 'error', status: 'degraded' }),
      agents: () => ({ total: 2, active: 0 })
    })
  })
  now.advance(5_000)
  producer.tick()
  t.same(logs.frame().logs.map(({ source, level }) => `${source} ${level}`).sort(), ['agents CRIT', 'monitoring CRIT', 'storage CRIT'])
})

t.test('producer: a frame that fails is skipped, and the others are sent', async t => {
  const fail = () => { throw new Error('figures are gone') }
  const odd: unknown = 'no error'
  const { now, types, logs, producer } = build({ monitoring: fail, agents: () => { throw odd } })
  now.advance(5_000)
  producer.tick()
  t.same(types(), ['health', 'logs'])
  t.match(logs.frame().logs, [
    { level: 'ERR', message: 'Failed to build the agents frame: unknown error' },
    { message: 'Failed to build the monitoring frame: figures are gone' }
  ])
})

t.test('producer: expensive frames are sent less often', async t => {
  const { now, types, producer } = build({ agents: () => { now.advance(2_000); return '{}' } })
  now.advance(5_000)
  producer.tick()
  types()
  now.advance(7_999)
  producer.tick()
  t.same(types(), [])
  now.advance(1)
  producer.tick()
  t.same(types(), all)
})

t.test('producer: it uses one timer and can be stopped', async t => {
  const { sent, producer, now, logs } = build({ intervalMs: 5 })
  producer.start()
  producer.start()
  now.advance(5)
  while (sent.length < 4) await delay(1)
  producer.stop()
  sent.length = 0
  now.advance(5)
  await delay(20)
  t.same(sent, [])
  logs.add({ level: 'INFO', message: 'm', source: 's' })
  producer.stop()
})

t.test('page settings', async t => {
  const settings = () => new UiSettings({ pingIntervalMs: 30_000, logCapacity: 500, logMessageLength: 2_048 })

  t.test('page settings: they start empty beside the settings of the server', async t => {
    const config = settings().config()
    t.same(config, { timezone: 'UTC', ws_ping_interval_ms: 30_000, log_buffer_maxlen: 500, log_message_maxlen: 2_048, ui: {} })
    t.same(fieldErrors(DashboardConfig, config), [])
    t.equal(settings().config('Europe/Berlin').timezone, 'Europe/Berlin')
    for (const tz of ['', '<b>', 'x'.repeat(65)]) t.equal(settings().config(tz).timezone, 'UTC')
  })

  t.test('page settings: they are stored, also those unknown to the server', async t => {
    const ui = settings()
    const given = { enableAutoRefresh: true, refreshInterval: 60, maxLogEntries: 100, soundAlerts: false, theme: { dark: true } }
    t.same(ui.update({ ui: given }), { status: 'ok', ui: given })
    t.same(ui.update({ ui: { soundAlerts: true } }), { status: 'ok', ui: { ...given, soundAlerts: true } })
    t.same(ui.config().ui, { ...given, soundAlerts: true })
    t.same(fieldErrors(ConfigAnswer, ui.update({ ui: {} })), [])
  })

  t.test('page settings: maxLogEntries is clamped to the buffer size', async t => {
    const table: Array<[given: unknown, kept: unknown]> = [
      [1, 10], [-5, 10], [10.7, 10], [500, 500], [501, 500], [1e300, 500], ['50', 50], ['many', undefined], [null, undefined],
      [Infinity, undefined]
    ]
    for (const [maxLogEntries, kept] of table) {
      t.strictSame(settings().update({ ui: { maxLogEntries } }), { status: 'ok', ui: kept === undefined ? {} : { maxLogEntries: kept } })
    }
  })

  t.test('page settings: a value that is not an object, too deep or too large is refused', async t => {
    const ui = settings()
    ui.update({ ui: { a: 1 } })
    let deep: unknown = 1
    for (let n = 0; n < 20; n++) deep = [deep]
    for (const body of [
      null, 'x', [], {}, { ui: null }, { ui: [] }, { ui: 'x' }, { ui: { deep } }, { ui: { large: 'x'.repeat(16_384) } }
    ]) {
      t.strictSame(ui.update(body), { status: 'error', message: 'Invalid payload' })
      t.same(fieldErrors(ConfigAnswer, ui.update(body)), [])
    }
    t.same(ui.config().ui, { a: 1 })
  })

  t.test('page settings: no member changes the prototype of an object', async t => {
    const ui = settings()
    t.strictSame(ui.update(JSON.parse('{"ui":{"__proto__":{"evil":1},"constructor":1,"b":2}}')), { status: 'ok', ui: { b: 2 } })
  })
})

t.test('client frames', async t => {
  const check = (type: keyof typeof dashboardClientFrames, more: object = {}) =>
    checkerOf(dashboardClientFrames[type]).Check({ type, ...more })
  const timestamp = '2030-01-01T00:00:00.000Z'
  t.ok(check('auth', { token: 't', fingerprint: 'f', timestamp }))
  t.notOk(check('auth'))
  for (const type of [
    'pause_monitoring', 'resume_monitoring', 'refresh_request', 'agents_request', 'clear_logs', 'clear_alerts'
  ] as const) t.ok(check(type, { timestamp, data: { forced: true } }))
  t.ok(check('dashboard_log', { data: { level: 'INFO', message: 'm', timestamp } }))
  t.notOk(check('dashboard_log', { data: { message: 'm', timestamp } }))
  t.ok(check('dashboard_alert', { data: { alerts: [] } }))
  t.notOk(check('dashboard_alert', { data: [] }))
  t.notOk(check('dashboard_alert'))
})
