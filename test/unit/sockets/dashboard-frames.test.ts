import t from 'tap'
import { MemoryAgentStore } from '../../../src/storage/memory/agent-store.js'
import type { StoredMetrics } from '../../../src/storage/agent-metrics.js'
import type { Outcome, ReportCommand } from '../../../src/storage/agent-store.js'
import { build, until, type Client, type Json } from '../../support/harness.js'
import { assertAlive, nextWhere, refusalOf } from './helper.js'
import { answersTo, dashboard, dashboards, entryOf, firstFrames, rawOf, strange, typesOf } from './dashboard-helper.js'

/** Intervals are long, so that frames come on request unless a test changes them. */
const quiet = { dashboardWs: { maxConnections: 50, intervalMs: 60_000 } }
const iso = () => new Date().toISOString()
const ackTypes = (frames: Json[]) => frames.map(({ type }) => type)
const withoutLogs = (frames: Json[]) => ackTypes(frames).filter(type => type !== 'logs')

/** One alert that all dashboards have. */
async function raise (client: Client, message = 'Something is up', more: object = {}): Promise<void> {
  await answersTo(client, { type: 'dashboard_alert', data: { type: 'tests', severity: 'critical', message, ...more } })
}

async function alertsOf (client: Client): Promise<Json[]> {
  const frames = await answersTo(client, { type: 'refresh_request' })
  return frames.find(({ type }) => type === 'alert')?.data.alerts ?? []
}

t.test('acks: each has the expected envelope, text and requestId', async t => {
  const registry = await build(t, quiet)
  const [client, neighbour] = await dashboards(registry, 2) as [Client, Client]
  const acks: Record<string, [type: string, data: object]> = {
    pause_monitoring: ['pause_ack', { status: 'paused' }],
    resume_monitoring: ['resume_ack', { status: 'resumed' }],
    refresh_request: ['refresh_ack', { status: 'completed', message: 'Fresh data sent' }],
    agents_request: ['agents_ack', { status: 'completed', message: 'Agents data sent' }],
    clear_logs: ['clear_logs_ack', { status: 'completed', message: 'Backend logs cleared successfully' }],
    clear_alerts: ['clear_alerts_ack', { status: 'completed', message: 'Backend alerts cleared successfully' }]
  }
  for (const [type, [ack, data]] of Object.entries(acks)) {
    const {
      timestamp, requestId, ...rest
    } = (await answersTo(client, { type, timestamp: iso(), data: { source: 'dashboard_admin' } })).at(-1)
    t.strictSame(rest, { type: ack, data }, type)
    t.match(timestamp, /^\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z$/)
    client.send({ type })
    t.notOk('requestId' in await client.next(ack), `${type}: answered without a requestId too`)
  }
  t.strictSame(strange(client), [])
  t.notOk(typesOf(neighbour).some(type => type.endsWith('_ack')), 'only the sender gets the acks')
})

t.test('pause: it withholds monitoring, health and alerts, and resuming delivers missed alerts', async t => {
  const rule = {
    id: 'fleet', type: 'fleet', metric: 'agents_total' as const, comparison: '>=' as const, threshold: 2, message: '{value} agents'
  }
  const registry = await build(t, { dashboardWs: { maxConnections: 50, intervalMs: 100 }, dashboard: { alertRules: [rule] } })
  const [paused, running] = await dashboards(registry, 2) as [Client, Client]
  const [ack] = (await answersTo(paused, { type: 'pause_monitoring', data: { paused: true } })).slice(-1)
  t.equal(ack.type, 'pause_ack')
  await entryOf(running, 'Monitoring paused')
  const seen = paused.all.length
  await registry.join('agent-one')
  await registry.join('agent-two')
  await nextWhere(running, 'alert', ({ data }) => data.alerts.some(({ type }: Json) => type === 'fleet'))
  await nextWhere(paused, 'agents', ({ data }) => data.total_count === 2)
  await entryOf(paused, "Agent 'agent-two' registered")
  for (let i = 0; i < 3; i++) await paused.next('agents')
  t.strictSame([...new Set(typesOf(paused).slice(seen))].sort(), ['agents', 'logs'])
  const frames = await answersTo(paused, { type: 'resume_monitoring', data: { paused: false } })
  const own = withoutLogs(frames).filter(type => type !== 'agents')
  t.strictSame(own.slice(-4), ['monitoring', 'health', 'alert', 'resume_ack'])
  const missed = frames.findLast(({ type }) => type === 'alert').data.alerts
  t.ok(missed.some(({ message }: Json) => message === '2 agents'), 'the alert that was missed')
  await entryOf(running, 'Monitoring resumed')
  await paused.next('monitoring')
  await paused.next('health')
})

t.test('pause: no monitoring follows the ack, also for a slow reader', async t => {
  const registry = await build(t, { dashboardWs: { maxConnections: 50, intervalMs: 50 } })
  for (let i = 0; i < 8; i++) await registry.join(`agent-${i}`, { metadata: { text: ['x'.repeat(100_000)] } })
  const [slow, healthy] = await dashboards(registry, 2) as [Client, Client]
  rawOf(slow).pause()
  for (let i = 0; i < 30; i++) {
    await healthy.next('agents')
    await registry.join('agent-0', { metadata: { text: ['x'.repeat(100_000)], i } })
  }
  slow.send({ type: 'pause_monitoring' })
  await entryOf(healthy, 'Monitoring paused')
  rawOf(slow).resume()
  await slow.next('pause_ack')
  for (let i = 0; i < 5; i++) await slow.next('agents')
  const after = typesOf(slow).slice(typesOf(slow).indexOf('pause_ack') + 1)
  t.strictSame([...new Set(after)].sort(), ['agents', 'logs'])
})

t.test('refresh: it sends every frame in order, also while paused, and takes nothing from other dashboards', async t => {
  const registry = await build(t, quiet)
  const [client, neighbour] = await dashboards(registry, 2) as [Client, Client]
  await entryOf(neighbour, 'New connection (2 total)')
  t.strictSame(ackTypes(await answersTo(client, { type: 'refresh_request' })).filter(type =>
    type !== 'logs'), ['monitoring', 'health', 'agents', 'refresh_ack'],
  'without alerts there is no alerts frame')
  await raise(client)
  await answersTo(client, { type: 'pause_monitoring' })
  const seen = neighbour.all.length
  await registry.join('agent-one')
  const frames = await answersTo(client, { type: 'refresh_request', data: { forced: true, request_all: true } })
  t.strictSame(ackTypes(frames).slice(-6), [...firstFrames, 'alert', 'refresh_ack'])
  t.equal(frames.findLast(({ type }) => type === 'agents').data.total_count, 1, 'current')
  t.equal(frames.findLast(({ type }) => type === 'logs').data.logs[0].message, 'Manual refresh')
  await entryOf(neighbour, 'Manual refresh')
  t.strictSame([...new Set(typesOf(neighbour).slice(seen))], ['logs'], 'the others see only the log entry')
  t.equal((await alertsOf(neighbour)).length, 1, 'and still have the alert')
})

/** Holds the reports of agents, and fails to render on demand. */
class FragileStore extends MemoryAgentStore {
  isBroken = false

  override async report (command: ReportCommand): Promise<Outcome> {
    const outcome = await super.report(command)
    if (!outcome.ok) return outcome
    const ownKeys = (target: StoredMetrics) => {
      if (this.isBroken) throw new Error('the disk is gone')
      return Reflect.ownKeys(target)
    }
    const metrics = new Proxy(outcome.record.metrics!, { ownKeys })
    return { ok: true, record: { ...outcome.record, metrics } }
  }
}

t.test('refresh: parts that fail are named in the ack and the log, and the rest is sent', async t => {
  const store = new FragileStore({ leaseMs: 60_000, retentionMs: 60_000 })
  const registry = await build(t, { ...quiet, storage: { agents: store } })
  const token = await registry.join('agent-one')
  const [client] = await dashboards(registry, 1) as [Client]
  const ask = async (type: string) => {
    const frames = await answersTo(client, { type })
    return { types: withoutLogs(frames), ack: frames.at(-1).data }
  }
  t.match(await ask('refresh_request'), { types: ['monitoring', 'health', 'agents', 'refresh_ack'], ack: { status: 'completed' } })
  await registry.post('/agents/agent-one/metrics', { token, body: { total_requests: 5 } })
  store.isBroken = true
  t.strictSame(await ask('refresh_request'), {
    types: ['health', 'refresh_ack'], ack: { status: 'error', message: 'Refresh failed: no monitoring, agents' }
  })
  t.strictSame(await ask('agents_request'), {
    types: ['agents_ack'], ack: { status: 'error', message: 'Failed to send agents data: they cannot be rendered' }
  })
  t.match(await entryOf(client, /^Failed to build the agents frame/), { level: 'ERR', source: 'monitoring' })
  store.isBroken = false
  t.match(await ask('agents_request'), { types: ['agents', 'agents_ack'], ack: { status: 'completed' } })
  t.strictSame(strange(client), [])
})

t.test('agents request: the current agents are sent before its ack', async t => {
  const registry = await build(t, quiet)
  const [client] = await dashboards(registry, 1) as [Client]
  await registry.join('agent-one')
  const frames = (await answersTo(client, { type: 'agents_request' })).filter(({ type }) => type !== 'logs')
  t.strictSame(ackTypes(frames), ['agents', 'agents_ack'])
  t.strictSame(frames[0].data.agents.map((agent: Json) => agent.agent_id), ['agent-one'])
})

t.test('log entries: an entry of a page reaches all dashboards within a second, paused ones too', async t => {
  const registry = await build(t, quiet)
  const all = await dashboards(registry, 3) as [Client, Client, Client]
  await answersTo(all[2], { type: 'pause_monitoring' })
  await entryOf(all[0], 'Monitoring paused')
  const timestamp = '2026-01-02T03:04:05Z'
  for (const [given, level] of Object.entries(
    { info: 'INFO', ' Success ': 'SUCS', WARNING: 'WARN', critical: 'CRIT', ERROR: 'ERR', SUCS: 'SUCS', Information: 'INFO' }
  )) {
    const message = `Level ${given}`
    const started = Date.now()
    all[0].send({ type: 'dashboard_log', timestamp, data: { level: given, message: `  ${message}  `, timestamp } })
    for (const client of all) {
      const entry = await entryOf(client, message.trim())
      t.match(entry, { level, source: 'dashboard', frontend_timestamp: timestamp })
      t.ok(Math.abs(Date.parse(entry.timestamp) - Date.now()) < 60_000, 'by the clock of the server')
    }
    t.ok(Date.now() - started < 5000)
  }
  t.strictSame(ackTypes(await answersTo(all[0], { type: 'dashboard_log', data: { level: 'info', message: 'm', timestamp } })).filter(type =>
    type !== 'logs'), ['ack'])
  t.strictSame(all.flatMap(strange), [])
})

t.test('log entries: an invalid entry is refused and not logged', async t => {
  const registry = await build(t, quiet)
  const [client] = await dashboards(registry, 1) as [Client]
  const right = { level: 'INFO', message: 'wrong entry', timestamp: iso() }
  const wrong: Record<string, unknown> = {
    'no data': undefined,
    'data that is text': 'x',
    'an array': [right],
    'no level': { ...right, level: undefined },
    'an unknown level': { ...right, level: 'DEBUG' },
    'a level that is a number': { ...right, level: 3 },
    'no message': { ...right, message: undefined },
    'a blank message': { ...right, message: '  ' },
    'no timestamp': { ...right, timestamp: undefined },
    'a time that is a number': { ...right, timestamp: 1 },
    'a time in words': { ...right, timestamp: 'yesterday' }
  }
  for (const [name, data] of Object.entries(wrong)) {
    t.match(await refusalOf(client, { type: 'dashboard_log', data, requestId: name }), { code: 'invalid_frame', requestId: name }, name)
  }
  const frames = await answersTo(client, { type: 'refresh_request' })
  t.notOk(JSON.stringify(frames).includes('wrong entry'))
})

t.test('alerts: an alert of a page is stored once in the common shape, and not pushed', async t => {
  const registry = await build(t, quiet)
  const [client, neighbour] = await dashboards(registry, 2) as [Client, Client]
  const timestamp = '2026-01-02T03:04:05.678Z'
  const data = {
    id: 17,
    title: 'Disk',
    message: 'The disk is full',
    severity: 'danger',
    type: 'Resource_Storage',
    timestamp,
    details: {
      percent: 99, deep: {}
    }
  }
  for (let i = 0; i < 3; i++) {
    t.strictSame(withoutLogs(await answersTo(client, { type: 'dashboard_alert', data: { ...data, id: i, title: `Disk ${i}` } })), ['ack'])
  }
  const [{ id, ...alert }, ...others] = await alertsOf(neighbour)
  t.strictSame(others, [], 'once, whatever its id and title')
  t.match(id, /^[0-9a-f-]{36}$/)
  t.strictSame(
    alert, { title: 'Disk 0', message: data.message, severity: 'critical', type: 'resource_storage', timestamp, details: { percent: 99 } }
  )
  await answersTo(client, {
    type: 'dashboard_alert',
    data: {
      alerts: [{ title: 'Only a title' }, { message: 'Only a message', type: 'odd_type' }, {}, 'x', null, { message: ' ' }]
    }
  })
  t.match(await alertsOf(neighbour), [
    { title: 'Odd type', message: 'Only a message', severity: 'info', type: 'odd_type' },
    { title: 'Only a title', message: 'Only a title', severity: 'info', type: 'general' },
    { title: 'Disk 0' }
  ])
  for (const bad of [undefined, 'x', [1]]) {
    t.match(await refusalOf(client, { type: 'dashboard_alert', data: bad, requestId: 'r' }), { code: 'invalid_frame', requestId: 'r' })
  }
  const empty: object[] = [{}, { message: ' ', title: '' }, { message: 7 }, { severity: 'critical', type: 'x' }, { alerts: [] }, {
    alerts: [
      {}, 'x', { title: ' ' }
    ]
  }, { alerts: 'x' }]
  for (const data of empty) {
    t.match(await refusalOf(client, { type: 'dashboard_alert', data, requestId: 'r' }), {
      code: 'missing_data', requestId: 'r'
    }, JSON.stringify(data))
  }
  t.equal((await alertsOf(client)).length, 3)
  t.strictSame([...strange(client), ...strange(neighbour)], [])
})

t.test('clear logs: one entry that names the admin remains, for all dashboards', async t => {
  const registry = await build(t, quiet)
  const { token } = await registry.admin()
  const [client, neighbour] = [await dashboard(registry, token), await dashboard(registry, token)]
  for (let i = 0; i < 20; i++) await registry.join(`agent-${i}`)
  await entryOf(neighbour, "Agent 'agent-19' registered")
  await answersTo(client, { type: 'clear_logs' })
  const { data } = await nextWhere(neighbour, 'logs', frame => frame.data.logs[0].message === 'Logs cleared')
  t.match(data, { count: 1, logs: [{ level: 'WARN', source: 'dashboard', user_id: 'admin' }] })
  const next = await dashboard(registry, token)
  t.strictSame(next.all.find(({ type }) => type === 'logs').data.logs
    .map(({ message }: Json) => message), ['New connection (3 total)', 'Logs cleared'])
})

t.test('clear alerts: all are forgotten, and a recurring alert is new', async t => {
  const registry = await build(t, quiet)
  const [client, neighbour] = await dashboards(registry, 2) as [Client, Client]
  await raise(client)
  await answersTo(client, { type: 'clear_alerts' })
  t.strictSame(await alertsOf(neighbour), [])
  t.match(await entryOf(neighbour, 'Alerts cleared'), { level: 'WARN', source: 'dashboard', user_id: 'admin' })
  await raise(client)
  t.equal((await alertsOf(neighbour)).length, 1)
})

t.test('dashboard pings: both kinds are answered, and a silent socket is pinged', async t => {
  const registry = await build(t, { dashboardWs: { maxConnections: 50, pingIntervalMs: 500 } })
  const [client] = await dashboards(registry, 1) as [Client]
  client.send(' PING\n')
  await client.next('pong')
  client.send({ type: 'ping', requestId: 'r' })
  const pong = await nextWhere(client, 'pong', frame => frame !== 'pong')
  t.equal(pong.requestId, 'r')
  t.ok(Math.abs(pong.timestamp - Date.now() / 1000) < 60, 'epoch seconds')
  await client.next('ping')
  client.send('pong')
  client.send({ type: 'pong' })
  await assertAlive(client)
  t.notOk(typesOf(client).includes('error'))
})

t.test('dashboard watch: the change feed has all fields that an admin may see', async t => {
  const registry = await build(t, { ...quiet, feed: { bookmarkIntervalMs: 200 } })
  const [client] = await dashboards(registry, 1) as [Client]
  await registry.join('agent-one')
  client.send({ type: 'watch', snapshot: true, requestId: 'w' })
  t.match(await client.next('ack'), { requestId: 'w', revision: registry.app.agentRegistry.revision })
  t.match(await client.next('agents_snapshot'), { agents: [{ agent_id: 'agent-one' }], last: true })
  await registry.join('agent-two')
  t.match((await client.next('agents_delta')).changes, [{ op: 'put', agent_id: 'agent-two' }])
  t.match(await client.next('bookmark'), { count: 2, digest: /^[0-9a-f]+$/ })
  client.send({ type: 'watch', since: 'other:1', requestId: 'again' })
  await client.next('resync')
  client.send({ type: 'unwatch', requestId: 'u' })
  t.match(await nextWhere(client, 'ack', ({ requestId }) => requestId === 'u'), { requestId: 'u' })
  t.strictSame(strange(client), [])
})

t.test('dashboard frames: an unknown frame gets an error with its requestId, and the socket stays open', async t => {
  const registry = await build(t, quiet)
  const [client] = await dashboards(registry, 1) as [Client]
  const wrong: Array<[unknown, object]> = [
    ['hello', { code: 'malformed_message' }],
    ['[1]', { code: 'malformed_message' }],
    ['null', { code: 'malformed_message' }],
    ['7', { code: 'malformed_message' }],
    ['{"type":"clear_logs","requestId":"r","__proto__":{}}', { code: 'malformed_message', requestId: 'r' }],
    [Buffer.from('{"type":"ping"}'), { code: 'unsupported_encoding' }],
    [{ requestId: 'r' }, { code: 'unknown_type', requestId: 'r' }],
    [{ type: 'get_discovery', requestId: 'r' }, { code: 'unknown_type', requestId: 'r' }],
    [{ type: 'clear_everything', requestId: 'r' }, { code: 'unknown_type', requestId: 'r' }],
    [{ type: 'pause_monitoring', requestId: '' }, { code: 'invalid_frame' }],
    [{ type: 'watch', since: 5, requestId: 'r' }, { code: 'invalid_frame', requestId: 'r' }],
    [{ type: 'dashboard_log', data: { message: 'x'.repeat(80_000) } }, { code: 'message_too_large' }]
  ]
  for (const [frame, expected] of wrong) t.match(await refusalOf(client, frame), expected, String(JSON.stringify(frame)).slice(0, 60))
  t.strictSame(strange(client), [])
})

t.test('dashboard frames: a sender over the rate gets a retry time, and its frames are not handled', async t => {
  const registry = await build(t, { dashboardWs: { maxConnections: 50, burst: 5, messagesPerSecond: 1 } })
  const [client] = await dashboards(registry, 1) as [Client]
  for (let i = 0; i < 10; i++) client.send({ type: 'agents_request', requestId: `r${i}` })
  await until(() => client.all.filter(({ type }) => type === 'agents_ack' || type === 'error').length === 10)
  const errors = client.all.filter(({ type }) => type === 'error')
  t.ok(errors.length >= 5)
  t.match(errors[0], { code: 'rate_limited', requestId: /^r\d$/ })
  t.ok(errors.every(({ retryAfterMs }) => retryAfterMs > 0))
})

t.test('slow dashboard: it delays no other, and resumes with the newest frames', async t => {
  const registry = await build(t, { dashboardWs: { maxConnections: 50, intervalMs: 50 } })
  for (let i = 0; i < 8; i++) await registry.join(`agent-${i}`, { metadata: { text: ['x'.repeat(100_000)] } })
  const [stalled, healthy] = await dashboards(registry, 2) as [Client, Client]
  rawOf(stalled).pause()
  let longest = 0
  for (let i = 0; i < 30; i++) {
    const started = Date.now()
    await healthy.next('agents')
    longest = Math.max(longest, Date.now() - started)
    await registry.join('agent-0', { name: `Round ${i}`, metadata: { text: ['x'.repeat(100_000)] } })
  }
  t.ok(longest < 3000, `the longest wait was ${longest} ms`)
  const before = stalled.all.length
  rawOf(stalled).resume()
  await nextWhere(stalled, 'agents', ({ data }) => data.agents.some(({ name }: Json) => name === 'Round 29'))
  const late = stalled.all.slice(before).filter(({ type }) => type === 'agents').length
  t.ok(late < 20, `${late} of 30 lists were queued for it`)
  await assertAlive(stalled)
})
