import t from 'tap'
import {
  answerChecker, build, type Client, type Harness, type Json, keys, password, problemOf, sleep, until
} from '../../support/harness.js'
import { nextWhere } from './helper.js'
import { answersTo, dashboard, dashboards, entryOf, firstFrames, strange, typesOf } from './dashboard-helper.js'

const often = { dashboardWs: { maxConnections: 50, intervalMs: 100 } }

async function frameOf (client: Client, type: string): Promise<Json> {
  const frames = await answersTo(client, { type: 'refresh_request' })
  return frames.findLast(frame => frame.type === type)
}

t.test('data frames: each is sent on its interval, built once for all dashboards', async t => {
  const intervalMs = 600
  const registry = await build(t, { dashboardWs: { maxConnections: 50, intervalMs } })
  await registry.join()
  const all = await dashboards(registry, 3)
  await all[0]!.next('monitoring')
  const started = Date.now()
  for (let i = 0; i < 4; i++) await all[0]!.next('monitoring')
  const elapsed = Date.now() - started
  t.ok(elapsed > 3.5 * intervalMs && elapsed < 6 * intervalMs, `four intervals of ${intervalMs} ms took ${elapsed} ms`)
  for (const type of ['monitoring', 'health', 'agents']) {
    const [first, ...others] = all.map(client => client.all.filter(frame => frame.type === type).slice(1))
    t.ok(first!.length >= 4 && first!.length <= 8, type)
    for (const frames of others) {
      const shared = frames.filter(({ timestamp }) => first!.some(frame => frame.timestamp === timestamp))
      t.ok(shared.length >= 3, `${type}: at the same times`)
      for (const frame of shared) t.strictSame(frame, first!.find(({ timestamp }) => timestamp === frame.timestamp))
    }
  }
  t.strictSame(all.flatMap(strange), [])
})

t.test('data frames: without dashboards none is built', async t => {
  const registry = await build(t, { dashboardWs: { maxConnections: 50, intervalMs: 20 } })
  const { token } = await registry.admin()
  await sleep(500)
  const client = registry.socket('/dashboard/ws')
  await client.opened
  client.send({ type: 'auth', token })
  await client.next('logs')
  const { data: { alerts } } = await client.next('alert')
  t.strictSame(typesOf(client).slice(0, 4), firstFrames)
  t.not(typesOf(client)[4], 'alert', 'no rule was evaluated, or there would be an alert at once: there are no agents')
  t.match(alerts[0], { message: 'No agents registered' })
})

t.test('data frames: an empty registry has zeros', async t => {
  const registry = await build(t)
  const [client] = await dashboards(registry, 1)
  const [monitoring, health, agents] = client!.all
  t.match(monitoring.data, { total_requests: 0, avg_response_time: 0, error_rate: 0, agent_metrics: [], agent_count: 0 })
  t.match(health.data, {
    status: 'healthy',
    components: {
      storage: {
        redis: 'not_configured', status: 'healthy'
      },
      ai_services: { status: 'not_configured' },
      agents: { total: 0, active: 0, status: 'no_agents', connectivity_ratio: 0 }
    }
  })
  t.strictSame(agents.data, { agents: [], total_count: 0, active_count: 0, agent_types: {}, status_summary: {} })
})

t.test('monitoring: reports are shown in seconds and weighted by requests, and the registry\'s requests are counted', async t => {
  const registry = await build(t, often)
  const [client] = await dashboards(registry, 1) as [Client]
  const tokens = [await registry.agent('agent-one'), await registry.agent('agent-two'), await registry.agent('agent-idle')]
  await registry.post(
    '/agents/agent-one/metrics', { token: tokens[0], body: { total_requests: 30, avg_response_time: 0.1, error_rate: 0 } }
  )
  await registry.post(
    '/agents/agent-two/metrics', { token: tokens[1], body: { total_requests: 10, avg_response_time: 0.5, error_rate: 0.4 } }
  )
  const { data } = await nextWhere(client, 'monitoring', frame => frame.data.total_requests === 40)
  t.match(data, { avg_response_time: 0.2, error_rate: 0.1, agent_count: 3 })
  t.strictSame(data.agent_metrics.map(({ agent_id: id, total_requests: n }: Json) => [id, n]), [['agent-two', 10], ['agent-one', 30]])
  for (let i = 0; i < 2; i++) await registry.post('/agents/report-metrics/agent-one?response_time=0.1&success=true', { token: tokens[0] })
  await nextWhere(client, 'monitoring', frame => frame.data.total_requests === 42)
  const before = (await frameOf(client, 'monitoring')).data.registry
  t.ok(before.total_requests >= 10, 'logins, registrations and reports are requests')
  for (let i = 0; i < 7; i++) await registry.get(i % 2 ? '/public/info' : '/agents/nobody')
  await nextWhere(client, 'monitoring', frame => frame.data.registry.total_requests === before.total_requests + 7)
  t.ok(before.avg_response_time > 0 && before.avg_response_time < 10)
})

t.test('resources: the figures are those of this host and this process', async t => {
  const registry = await build(t, often)
  const [client] = await dashboards(registry, 1) as [Client]
  const { data } = await nextWhere(client, 'monitoring', frame => frame.data.resource_utilization.cpu > 0)
  const { cpu, memory, network, storage } = data.resource_utilization
  for (const [name, value] of Object.entries({ cpu, memory, network, storage })) t.ok(value >= 0 && value <= 100, name)
  t.ok(memory > 0 && storage > 0)
  const { cpu: own, memory_bytes: bytes, uptime_seconds: uptime } = data.process
  t.ok(own > 0 && bytes > 10_000_000)
  t.ok(Math.abs(bytes - process.memoryUsage.rss()) < 500_000_000)
  t.ok(Math.abs(uptime - process.uptime()) < 10)
  t.strictSame(strange(client), [])
})

t.test('health and agents: they follow the leases', async t => {
  const registry = await build(t, { ...often, lease: { durationMs: 1500 } })
  const [client] = await dashboards(registry, 1) as [Client]
  await registry.agentSocket(await registry.join('agent-alive'))
  await nextWhere(client, 'health', ({ data }) => data.components.agents.status === 'healthy')
  for (const id of ['agent-b', 'agent-c', 'agent-d']) await registry.join(id)
  const { data } = await nextWhere(client, 'agents', frame => frame.data.total_count === 4)
  t.match(data, { active_count: 4, agent_types: { testing: 4 }, status_summary: { alive: 4, dead: 0 } })
  const dead = await nextWhere(client, 'health', frame => frame.data.components.agents.active === 1)
  t.match(dead.data.components.agents, { total: 4, connectivity_ratio: 0.25, status: 'degraded' }, 'few agents of a small fleet')
  const { data: after } = await nextWhere(client, 'agents', frame => frame.data.active_count === 1)
  t.match(after.status_summary, { alive: 1, dead: 3 })
  t.match(after.agents.find((agent: Json) => agent.agent_id === 'agent-b'), { status: 'dead', state: 'dead', last_seen: /Z$/ })
  t.match(await entryOf(client, "Agent 'agent-b' is dead"), { level: 'WARN', source: 'agents' })
  await registry.app.agentRegistry.unregister('agent-b')
  await nextWhere(client, 'agents', frame => frame.data.total_count === 3)
})

t.test('log: it has entries for agents, logins, keys and dashboards', async t => {
  const registry = await build(t, often)
  const headers = { 'x-client-fingerprint': 'x' }
  await registry.post('/auth/login', { body: { username: 'admin', password: 'wrong password' }, headers })
  await registry.post(
    '/auth/agent/request_temp_token', { body: { agent_id: 'agent-bad', agent_type: 'testing', agent_key: 'wrong-key-0000' } }
  )
  const { token } = await registry.admin()
  const client = await dashboard(registry, token)
  const entries: Array<[string, object]> = [
    ['Monitoring started', { level: 'INFO', source: 'system' }],
    ['Admin login failed: admin', { level: 'WARN', source: 'auth', event_type: 'login_failed', client_ip: '127.0.0.1' }],
    ['Temporary token failed: agent-bad', { level: 'WARN', source: 'auth', event_type: 'temp_token_failed' }],
    ['Admin login succeeded: admin', { level: 'INFO', source: 'auth', event_type: 'login_success' }],
    ['New connection (1 total)', { level: 'INFO', source: 'dashboard', user_id: 'admin' }],
    ['Temporary token succeeded: agent-one', { level: 'INFO', source: 'auth' }],
    ["Agent 'agent-one' registered", { level: 'INFO', source: 'agents' }],
    ["Agent 'agent-one' is unregistered", { level: 'INFO', source: 'agents' }],
    ['New connection (2 total)', { source: 'dashboard' }],
    ['Disconnected (1 remaining)', { level: 'INFO', source: 'dashboard', user_id: 'admin' }]
  ]
  await registry.register()
  await registry.app.agentRegistry.unregister('agent-one')
  const other = await dashboard(registry, token)
  other.close()
  await other.closed
  for (const [message, expected] of entries) {
    const { data } = await nextWhere(client, 'logs', frame => frame.data.logs.some((entry: Json) => entry.message === message))
    t.match(data.logs.find((entry: Json) => entry.message === message), expected, message)
  }
  const { data } = await frameOf(client, 'logs')
  const times = data.logs.map(({ timestamp }: Json) => timestamp)
  t.strictSame(times, [...times].sort().reverse(), 'newest first')
  t.equal(data.count, data.logs.length)
})

/** An app whose log is sent to the dashboards. */
async function logging (t: Parameters<typeof build>[0]): Promise<Harness> {
  const log: { sink?: { write (line: string): void } } = {}
  const registry = await build(
    t, often, { server: { logger: { level: 'trace', stream: { write: (line: string) => { log.sink?.write(line) } } } } }
  )
  log.sink = registry.app.agentRegistry.logSink
  return registry
}

t.test('log: no frame contains a secret', async t => {
  const registry = await logging(t)
  const { token } = await registry.admin()
  const client = await dashboard(registry, token)
  const agent = await registry.agent()
  const temp = await registry.tempToken('agent-two')
  await registry.get(`/agents?token=${agent}`, { token: agent })
  await registry.socket(`/agents/ws?token=${agent}`).next('auth_success')
  await registry.post(
    '/auth/login', { body: { username: 'admin', password: 'wrong-password-here' }, headers: { 'x-client-fingerprint': 'x' } }
  )
  registry.app.log.warn(
    { authorization: `Bearer ${agent}`, password: 'logged-password', details: `Bearer ${temp}` }, `the host logs token=${agent}`
  )
  client.send({ type: 'dashboard_log', data: { level: 'ERR', message: `the page logs ${token}`, timestamp: new Date().toISOString() } })
  client.send({ type: 'dashboard_alert', data: { message: `the page warns of ?key=${keys.plain} and ${token}`, details: { token } } })
  await entryOf(client, /^the page logs/)
  t.match(await entryOf(client, /^the host logs/), { level: 'WARN', source: 'server' })
  await frameOf(client, 'alert')
  const text = JSON.stringify(client.all)
  for (const secret of [token, agent, temp, keys.plain, password, 'wrong-password-here', 'logged-password']) t.notOk(text.includes(secret))
  t.ok(text.includes('the page warns of ?key=[redacted]'))
})

t.test('log: a frame is bounded, its count is not, and the buffer is', async t => {
  const registry = await build(t, { ...often, dashboard: { maxLogsPerFrame: 5, logCapacity: 30, logMessageLength: 40 } })
  const [client] = await dashboards(registry, 1) as [Client]
  for (let i = 0; i < 20; i++) await registry.join(`agent-${i}`)
  const { data } = await nextWhere(client, 'logs', frame => frame.data.count > 20)
  t.equal(data.logs.length, 5)
  for (let i = 0; i < 40; i++) registry.app.agentRegistry.logSink.write(JSON.stringify({ level: 40, msg: `${i} ${'x'.repeat(100)}` }))
  const full = await nextWhere(client, 'logs', frame => frame.data.logs[0].message.startsWith('39'))
  t.equal(full.data.count, 30)
  t.equal(full.data.logs[0].message.length, 40)
})

t.test('alerts: a custom rule raises one alert for all dashboards, and another after its cooldown', async t => {
  const alertRules = [
    {
      id: 'fleet',
      type: 'fleet',
      metric: 'agents_total' as const,
      comparison: '>=' as const,
      threshold: 2,
      severity: 'critical' as const,
      cooldownMs: 1000,
      title: 'Fleet',
      message: '{value} of {threshold} agents'
    },
    {
      id: 'agent_connectivity.no_agents',
      type: 'agent_connectivity',
      metric: 'agents_condition' as const,
      comparison: '=' as const,
      threshold: 'no_agents',
      message: 'Nobody is here'
    }
  ]
  const registry = await build(t, { ...often, dashboard: { alertRules } })
  const [first, second] = await dashboards(registry, 2) as [Client, Client]
  t.match((await first.next('alert')).data.alerts, [{ message: 'Nobody is here', severity: 'warning' }], 'in place of the default one')
  await registry.join('agent-one')
  await registry.join('agent-two')
  const isFleet = ({ data }: Json) => data.alerts[0].type === 'fleet'
  const { data: { alerts: [alert] } } = await nextWhere(first, 'alert', isFleet)
  t.match(alert, { id: /^[0-9a-f-]{36}$/, title: 'Fleet', message: '2 of 2 agents', severity: 'critical' })
  t.strictSame(alert.details, { metric: 'agents_total', value: 2, threshold: 2 })
  t.strictSame((await nextWhere(second, 'alert', isFleet)).data.alerts, [alert], 'identical for the other dashboard')
  t.match(await entryOf(second, '2 of 2 agents'), { level: 'CRIT', source: 'monitoring' })
  const again = (await nextWhere(first, 'alert', isFleet)).data.alerts[0]
  t.ok(Date.parse(again.timestamp) - Date.parse(alert.timestamp) >= 1000)
})

t.test('alerts: the default rules detect slow and failing agents, and a dead fleet', async t => {
  const registry = await build(t, { ...often, lease: { durationMs: 800 } })
  const [client] = await dashboards(registry, 1) as [Client]
  const token = await registry.join()
  for (const values of [{ avg_response_time: 1.2 }, { avg_response_time: 2.5, total_requests: 20, error_rate: 0.3 }]) {
    await registry.post('/agents/agent-one/metrics', { token, body: values })
    await nextWhere(client, 'alert', ({ data }) =>
      data.alerts.some(({ details }: Json) => details.response_time === values.avg_response_time))
  }
  await until(() => registry.app.agentRegistry.get('agent-one')!.status === 'dead')
  await nextWhere(client, 'alert', ({ data }) => data.alerts.some(({ message }: Json) => message.startsWith('No active agents')))
  const stored = (await frameOf(client, 'alert')).data.alerts
  const found = (type: string) => stored.filter((alert: Json) => alert.type === type).map(({ severity }: Json) => severity)
  t.strictSame(found('performance'), ['critical', 'info'], 'newest first, each severity once')
  t.strictSame(found('error_rate'), ['critical'])
  t.match(found('agent_connectivity')[0], 'critical')
  t.match(await entryOf(client, /^No active agents/), { level: 'CRIT', source: 'agents' })
  t.match(stored.find((alert: Json) =>
    alert.type === 'error_rate'), { title: 'Error rate', message: 'Error rate is 30 %', details: { error_rate: 0.3, threshold: 0.2 } })
  t.strictSame(strange(client), [])
})

const answers = answerChecker()
const pin = '2468'
const refused = { status: 'error', message: 'Invalid payload' }

t.test('dashboard settings', async t => {
  const registry = await build(
    t, { dashboardWs: { pingIntervalMs: 12_000 }, dashboard: { logCapacity: 500, logMessageLength: 100 } }, answers
  )
  const admin = await registry.admin()
  const config = (query = '') => registry.get(`/dashboard/config${query}`, admin)
  const update = (body: unknown) => registry.post('/dashboard/config', { ...admin, body })

  await t.test('dashboard settings: they reflect the options', async t => {
    const { status, body } = await config()
    t.equal(status, 200)
    t.same(body, { timezone: 'UTC', ws_ping_interval_ms: 12_000, log_buffer_maxlen: 500, log_message_maxlen: 100, ui: {} })
  })

  await t.test('dashboard settings: the time zone is returned if it is valid', async t => {
    const zones: Array<[query: string, zone: string]> = [
      ['?tz=Europe/Paris', 'Europe/Paris'], ['?tz=Etc/GMT%2B5', 'Etc/GMT+5'], ['?tz=', 'UTC'], ['?tz=%3Cscript%3E', 'UTC'],
      ['?tz=1', 'UTC'], [`?tz=${'Z'.repeat(64)}`, 'Z'.repeat(64)]
    ]
    for (const [query, zone] of zones) t.equal((await config(query)).body.timezone, zone, query)
    t.equal(problemOf(t, await config(`?tz=${'Z'.repeat(65)}`)), 'validation-failed')
  })

  await t.test('dashboard settings: the settings of the page are merged into the stored ones', async t => {
    t.same((await update({ ui: { theme: 'dark', nested: { a: [1, null] } } })).body, {
      status: 'ok', ui: { theme: 'dark', nested: { a: [1, null] } }
    })
    t.same((await update({ ui: { theme: 'light' } })).body.ui, { theme: 'light', nested: { a: [1, null] } })
    const other = await registry.admin()
    t.same((await registry.get('/dashboard/config', other)).body.ui, { theme: 'light', nested: { a: [1, null] } }, 'for all admins')
  })

  const clamped: Array<[given: unknown, kept: unknown]> = [
    [10, 10], [9, 10], [-5, 10], [500, 500], [501, 500], [1e9, 500], [99.9, 99], ['200', 200], ['x', undefined], [null, undefined],
    [true, undefined]
  ]
  for (const [given, kept] of clamped) {
    await t.test(`dashboard settings: maxLogEntries is clamped between 10 and the buffer: ${String(
      given
    )} becomes ${String(kept)}`, async t => {
      t.equal((await update({ ui: { maxLogEntries: given } })).body.ui.maxLogEntries, kept)
      t.equal((await config()).body.ui.maxLogEntries, kept)
    })
  }

  await t.test('dashboard settings: a body that is too large, too deep or not an object is refused and changes nothing', async t => {
    const before = (await config()).body.ui
    const deep = JSON.parse(`${'{"a":'.repeat(10)}1${'}'.repeat(10)}`) as Json
    for (const body of [
      undefined, null, [], 7, 'text', {}, { ui: null }, { ui: [] }, { ui: 'dark' }, { ui: { a: 'x'.repeat(16_384) } }, { ui: deep }
    ]) {
      const answer = await update(body)
      t.equal(answer.status, 200)
      t.same(answer.body, refused, JSON.stringify(body)?.slice(0, 40))
    }
    t.equal((await registry.post('/dashboard/config', { ...admin, raw: '{"ui":{"__proto__":{"a":1}}}' })).status, 422)
    t.same((await update({ ui: { constructor: 1, prototype: 2 } })).body.ui, before)
    t.same((await config()).body.ui, before)
  })
})

t.test('dashboard settings: access is for admins', async t => {
  const registry = await build(t, {}, answers)
  const admin = await registry.admin()
  const agent = await registry.agent()
  const temp = await registry.tempToken('agent-two')
  for (const method of ['GET', 'POST']) {
    const ask = (call: object) => registry.call(method, '/dashboard/config', call)
    t.equal((await ask(admin)).status, 200)
    t.equal(problemOf(t, await ask({})), 'authentication-failed', method)
    for (const token of [agent, temp]) t.equal(problemOf(t, await ask({ token })), 'insufficient-permissions', method)
    t.equal((await ask({ token: admin.token, headers: { 'x-client-fingerprint': 'another' } })).status, 401, method)
  }
  t.equal(problemOf(t, await registry.call('PUT', '/dashboard/config', admin)), 'method-not-allowed')
  await registry.post('/auth/logout', admin)
  for (const method of ['GET', 'POST']) t.equal((await registry.call(method, '/dashboard/config', admin)).status, 401, method)
})

t.test('dashboard settings: a session with a PIN needs the PIN to change them', async t => {
  const registry = await build(t, {}, answers)
  const admin = await registry.admin()
  await registry.post('/auth/set_pin', { ...admin, body: { pin } })
  const update = (more: object) =>
    registry.post('/dashboard/config', { ...admin, headers: { ...admin.headers, ...more }, body: { ui: { theme: 'dark' } } })
  const missing = await update({})
  t.equal(missing.status, 400)
  t.equal(problemOf(t, missing), 'pin-required')
  const wrong = await update({ 'x-session-pin': '1111' })
  t.equal(wrong.status, 401)
  t.equal(problemOf(t, wrong), 'pin-incorrect')
  t.same((await registry.get('/dashboard/config', admin)).body.ui, {}, 'reading needs no PIN')
  t.same((await update({ 'x-session-pin': pin })).body, { status: 'ok', ui: { theme: 'dark' } })
  t.equal((await registry.post('/dashboard/config', { ...await registry.admin(), body: { ui: {} } })).status, 200,
    'another session has no PIN')
})

t.test('dashboard settings: they are absent without the dashboard routes', async t => {
  const registry = await build(t, { routes: { dashboard: false } })
  const admin = await registry.admin()
  t.equal((await registry.get('/dashboard/config', admin)).status, 404)
})

t.test('every response matched its schema', async t => { t.same(answers.findings, []) })
