import t from 'tap'
import { buildApp } from '../../../src/server/app.js'
import { MemoryAgentStore } from '../../../src/index.js'
import {
  build, type Client, fingerprint, Harness, type Json, keys, registration, silentServer, sleep, until, withDefaults
} from '../../support/harness.js'
import { assertAlive, nextWhere, refusalOf } from '../sockets/helper.js'
import { countingStore, timed } from '../../support/counting-store.js'
import { answersTo, dashboard, dashboards, entryOf, firstFrames, rawOf, strange, typesOf } from '../sockets/dashboard-helper.js'

// Each test covers a defect of the registry that this protocol comes from, and states the expected behaviour.

const path = '/dashboard/ws'
const quiet = { dashboardWs: { maxConnections: 50, intervalMs: 60_000 } }
const often = { dashboardWs: { maxConnections: 50, intervalMs: 100 } }

const storedAlerts = async (client: Client): Promise<Json[]> =>
  (await answersTo(client, { type: 'refresh_request' })).find(({ type }) => type === 'alert')?.data.alerts ?? []

t.test('dashboard: a session ends by fingerprint mismatch, logout and expiry', async t => {
  const registry = await build(t, often)
  const admin = await registry.admin()
  const client = await dashboard(registry, admin.token, { fingerprint })
  const wrong = registry.socket(path)
  await wrong.opened
  wrong.send({ type: 'auth', token: admin.token, fingerprint: 'stolen-elsewhere' })
  t.equal((await wrong.closed).code, 4001)
  await registry.post('/auth/logout', admin)
  t.equal((await client.closed).code, 4001)
  const again = registry.socket(path)
  await again.opened
  again.send({ type: 'auth', token: admin.token, fingerprint })
  t.equal((await again.closed).code, 4001)
  t.strictSame(again.all, [], 'no frame after logout')
  const short = await build(t, { ...often, admin: { sessionTimeoutMs: 1500 } })
  t.equal((await (await dashboard(short, (await short.admin()).token)).closed).code, 4002)
})

t.test('dashboard: destructive and changing requests require the PIN', async t => {
  const registry = await build(t, quiet)
  const { token, headers } = await registry.admin()
  await registry.join()
  t.equal((await registry.post('/auth/set_pin', { token, headers, body: { pin: 'correct-horse-9' } })).status, 200)
  const calls: Array<[string, (headers: Record<string, string>) => Promise<{ status: number, body: Json }>]> = [
    ['an agent', headers => registry.delete('/agents/agent-one', { token, headers })],
    ['a setting', headers => registry.post('/dashboard/config', { token, headers, body: { ui: { soundAlerts: true } } })]
  ]
  for (const [name, call] of calls) {
    t.match(await call(headers), { status: 400, body: { type: /pin-required$/ } }, `${name}, without a PIN`)
    t.match(await call({ ...headers, 'x-session-pin': 'wrong-horse-0' }), { status: 401, body: { type: /pin-incorrect$/ } },
      `${name}, wrong PIN`)
    t.equal((await call({ ...headers, 'x-session-pin': 'correct-horse-9' })).status, 200, `${name}, right PIN`)
  }
})

t.test('dashboard: markup from clients is sent as unescaped text, and no page of the registry executes it', async t => {
  const markup = '<img src=x onerror=alert(1)>'
  const app = await buildApp({ options: withDefaults(quiet), server: silentServer })
  t.teardown(() => app.close())
  await app.listen({ port: 0, host: '127.0.0.1' })
  const registry = new Harness(app)
  const refused = await registry.get(`/agents/${encodeURIComponent(markup)}`)
  t.equal(refused.status, 401)
  t.match(refused.headers.get('content-security-policy'), /default-src 'self'/)
  t.notMatch(refused.headers.get('content-security-policy'), /script-src[^;]*'unsafe-inline'/)
  await registry.join('agent-marked', { name: '<b>&"\'</b>', metadata: { note: markup } })
  const [client, neighbour] = await dashboards(registry, 2) as [Client, Client]
  t.match(client.all.find(({ type }) => type === 'agents').data.agents, [{ name: '<b>&"\'</b>', metadata: { note: markup } }])
  client.send({ type: 'dashboard_log', data: { level: 'INFO', message: markup, timestamp: new Date().toISOString() } })
  t.match(await entryOf(neighbour, markup), { source: 'dashboard', level: 'INFO' })
  await answersTo(client, { type: 'dashboard_alert', data: { title: markup, message: `${markup}!` } })
  t.match(await storedAlerts(client), [{ title: markup, message: `${markup}!` }])
})

t.test('dashboard: invalid reports and records of one agent do not hide the fleet', async t => {
  const store = new MemoryAgentStore({ leaseMs: 60_000, retentionMs: 60_000 })
  const before = await build(t, { storage: { agents: store } })
  await before.join('agent-old', { agent_type: 'networking' })
  await before.app.close()
  const registry = await build(t, { ...often, storage: { agents: store }, allowedAgentTypes: ['testing'] })
  const token = await registry.agent()
  for (const raw of ['{"avg_response_time":4000}', '{"success_rate":NaN}', '{"success_rate":1e999}', '{"error_rate":"all"}']) {
    t.equal((await registry.post('/agents/agent-one/metrics', { token, raw })).status, 422, raw)
  }
  await registry.post('/agents/agent-one/metrics', { token, body: { agent_id: 'agent-old', total_requests: 3 } })
  const [client] = await dashboards(registry, 1) as [Client]
  t.match((await client.next('agents')).data, { total_count: 2, active_count: 2, agent_types: { networking: 1, testing: 1 } })
  const { data } = await client.next('monitoring')
  t.match(data, { agent_count: 2, total_requests: 3, agent_metrics: [{ agent_id: 'agent-one' }] })
  t.strictSame(strange(client), [])
})

t.test('dashboard: without dashboards the producer is idle and does not query the store', async t => {
  const { store, callsOf } = countingStore()
  const registry = await build(t, { dashboardWs: { maxConnections: 50, intervalMs: 30 }, storage: { agents: store } })
  const { token } = await registry.admin()
  await sleep(400)
  const client = registry.socket(path)
  await client.opened
  client.send({ type: 'auth', token })
  await client.next('logs')
  await client.next('alert')
  t.strictSame(typesOf(client).slice(0, 4), firstFrames)
  t.not(typesOf(client)[4], 'alert', 'none was raised before, though there are no agents')
  const registering = await callsOf(async () => { for (let i = 0; i < 200; i++) await registry.join(`agent-${i}`) })
  t.ok(registering.includes('register'))
  t.strictSame(await callsOf(async () => { for (let i = 0; i < 10; i++) await client.next('agents') }), [])
})

/** Fills the log as pino does. */
function fill (registry: Harness, count: number, text = 'x'.repeat(400)) {
  for (let i = 0; i < count; i++) registry.app.agentRegistry.logSink.write(JSON.stringify({ level: 40, msg: `${i} ${text}` }))
}

t.test('dashboard: a logs frame never carries the whole buffer', async t => {
  const registry = await build(t, quiet)
  fill(registry, 10_000)
  const [client, neighbour] = await dashboards(registry, 2) as [Client, Client]
  client.send({ type: 'dashboard_log', data: { level: 'INFO', message: 'one more', timestamp: new Date().toISOString() } })
  await entryOf(neighbour, 'one more')
  const frames = neighbour.all.filter(({ type }) => type === 'logs')
  for (const { data } of frames) t.match([data.logs.length, data.count], [200, 10_000])
  t.ok(Math.max(...frames.map(frame => JSON.stringify(frame).length)) < 200_000)
  fill(registry, 200, 'é'.repeat(2_000))
  const large = await nextWhere(neighbour, 'logs', ({ data }) => data.logs[0].message.startsWith('199'))
  t.ok(Buffer.byteLength(JSON.stringify(large)) <= 1_048_576)
})

t.test('dashboard: the cost of a log entry does not depend on the log size, and no request waits for it', async t => {
  const registry = await build(t, { ...quiet, attempts: { burst: 1000 } })
  const refused = () =>
    registry.post('/auth/agent/request_temp_token', { body: { agent_id: 'agent-bad', agent_type: 'testing', agent_key: 'wrong-key-0000' } })
  const fresh = await timed(() => fill(registry, 5_000))
  fill(registry, 10_000)
  const full = await timed(() => fill(registry, 5_000))
  t.ok(full < 5 * fresh + 500, `5,000 entries: ${fresh} ms in an empty log, ${full} ms in a full one`)
  const slowest = Math.max(...await Promise.all(Array.from({ length: 20 }, () => timed(refused))))
  t.ok(slowest < 3000, `a 401 takes ${slowest} ms`)
})

t.test('dashboard: a refresh removes no alert from other dashboards', async t => {
  const registry = await build(t, { dashboardWs: { maxConnections: 50, intervalMs: 600 } })
  const [greedy, other] = await dashboards(registry, 2) as [Client, Client]
  const refreshed: Json[] = []
  while (!typesOf(other).includes('alert')) refreshed.push(...await answersTo(greedy, { type: 'refresh_request' }))
  t.match((await other.next('alert')).data.alerts[0], { message: 'No agents registered' })
  t.ok(refreshed.filter(({ type }) => type === 'monitoring').length > 1, 'refreshed before it was raised')
  t.equal((await storedAlerts(await dashboard(registry, (await registry.admin()).token))).length, 1, 'a later dashboard has it')
})

const bulky = { metadata: { text: ['x'.repeat(100_000)] } }

t.test('dashboard: a stalled dashboard delays no frame, connect, pause or disconnect of the others', async t => {
  const registry = await build(t, often)
  for (let i = 0; i < 8; i++) await registry.join(`agent-${i}`, bulky)
  const { token } = await registry.admin()
  const [stalled, healthy] = [await dashboard(registry, token), await dashboard(registry, token)]
  rawOf(stalled).pause()
  for (let i = 0; i < 10; i++) await healthy.next('agents')
  const steps: Record<string, () => Promise<unknown>> = {
    pause: () => answersTo(healthy, { type: 'pause_monitoring' }),
    resume: () => answersTo(healthy, { type: 'resume_monitoring' }),
    refresh: () => answersTo(healthy, { type: 'refresh_request' }),
    connect: () => dashboard(registry, token),
    frame: () => healthy.next('monitoring'),
    disconnect () { healthy.close(); return healthy.closed }
  }
  for (const [name, step] of Object.entries(steps)) {
    const ms = await timed(step)
    t.ok(ms < 5000, `${name} took ${ms} ms`)
  }
  stalled.terminate()
})

t.test('dashboard: a frame that is not an object is answered, and the socket stays open', async t => {
  const registry = await build(t, quiet)
  const [client] = await dashboards(registry, 1) as [Client]
  for (const frame of ['[]', '5', 'null', '"text"', 'true', '{', Buffer.from([1, 2, 3])]) {
    t.ok((await refusalOf(client, frame)).code, String(frame))
  }
  t.equal(client.ws.readyState, client.ws.OPEN)
})

t.test('dashboard: a timeout and a bad first frame close with 4001, and a full tier refuses the upgrade', async t => {
  const registry = await build(t, { dashboardWs: { timeoutMs: 400, maxConnections: 1 } })
  t.strictSame(await registry.socket(path).closed, { code: 4001, reason: 'Authentication timeout' })
  for (const first of ['{', '[]', 'null']) {
    const client = registry.socket(path)
    await client.opened
    client.send(first)
    t.strictSame(await client.closed, { code: 4001, reason: 'Auth frame required' })
  }
  await dashboards(registry, 1)
  t.equal((await registry.socket(path).refused).status, 503)
})

/** Acts as the dashboard page does: sends back every received alert with its own id and title. */
function echo (client: Client) {
  let id = 0
  client.ws.on('message', data => {
    const frame = JSON.parse(String(data))
    if (frame.type !== 'alert') return
    for (const { type, message, severity, timestamp } of frame.data.alerts) {
      client.send({ type: 'dashboard_alert', timestamp, data: { id: ++id, title: type.toUpperCase(), message, severity, type, timestamp } })
    }
  })
}

t.test('dashboard: pages that send alerts back create no duplicates, at any number and reload rate', async t => {
  const registry = await build(t, often)
  const { token } = await registry.admin()
  const open = async () => {
    const client = registry.socket(path)
    await client.opened
    echo(client)
    client.send({ type: 'auth', token })
    return client
  }
  const pages = [await open(), await open(), await open()]
  for (const page of pages) await page.next('alert')
  const reloaded = await open()
  await reloaded.next('alert')
  for (const page of [...pages, reloaded]) await assertAlive(page)
  const stored = await storedAlerts(pages[0]!)
  const messages = stored.map(({ type, message }) => `${type} ${message}`)
  t.equal(messages.filter(text => text.endsWith('No agents registered')).length, 1)
  t.equal(new Set(messages).size, messages.length)
  t.match(stored.find(({ message }) =>
    message === 'No agents registered'), { id: /^[0-9a-f-]{36}$/, title: 'Agent connectivity', details: { total_agents: 0 } })
})

t.test('dashboard: live and stored alerts are identical, and a pause loses none', async t => {
  const registry = await build(t, often)
  const { token } = await registry.admin()
  const [live, paused] = [await dashboard(registry, token), registry.socket(path)]
  await paused.opened
  paused.send({ type: 'auth', token })
  await answersTo(paused, { type: 'pause_monitoring' })
  const { data: { alerts: [alert] } } = await live.next('alert')
  t.strictSame(Object.keys(alert).sort(), ['details', 'id', 'message', 'severity', 'timestamp', 'title', 'type'])
  const resumed = await answersTo(paused, { type: 'resume_monitoring' })
  const { data } = resumed.findLast(({ type }) => type === 'alert')
  t.strictSame(data.alerts.find(({ id }: Json) => id === alert.id), alert, 'to the paused dashboard')
  const late = await dashboard(registry, token)
  t.strictSame((await late.next('alert')).data.alerts.find(({ id }: Json) => id === alert.id), alert, 'to a later dashboard')
})

t.test('dashboard: ten thousand stored alerts do not slow the first frames of a new dashboard', async t => {
  const registry = await build(t, { dashboardWs: { maxConnections: 50, intervalMs: 60_000, burst: 1000 } })
  const { token } = await registry.admin()
  const client = await dashboard(registry, token)
  for (let batch = 0; batch < 200; batch++) {
    const alerts = Array.from({ length: 50 }, (_, i) => ({
      type: 'tests',
      message: `Alert ${batch * 50 +
      i} ${'x'.repeat(500)}`.slice(0, 500)
    }))
    client.send({ type: 'dashboard_alert', data: { alerts } })
  }
  await assertAlive(client)
  const next = registry.socket(path)
  await next.opened
  const ms = await timed(async () => { next.send({ type: 'auth', token }); await next.next('alert') })
  t.ok(ms < 3000, `the first frames took ${ms} ms`)
  const { data } = next.all.find(({ type }) => type === 'alert')
  t.equal(data.alerts.length, 200)
  t.match(data.alerts[0].message, /^Alert 9999 /, 'newest first')
})

t.test('dashboard: a cleared log is empty on every dashboard', async t => {
  const registry = await build(t, quiet)
  const { token } = await registry.admin()
  const client = await dashboard(registry, token)
  fill(registry, 50, 'to be forgotten')
  await entryOf(client, /to be forgotten/)
  await answersTo(client, { type: 'clear_logs' })
  const seen = client.all.length
  await answersTo(client, { type: 'refresh_request' })
  const next = await dashboard(registry, token)
  t.notOk(JSON.stringify([next.all, client.all.slice(seen)]).includes('to be forgotten'))
})

t.test('dashboard: an abandoned dashboard is closed', async t => {
  const registry = await build(t, { dashboardWs: { maxConnections: 50, intervalMs: 100, pingIntervalMs: 400 } })
  for (let i = 0; i < 8; i++) await registry.join(`agent-${i}`, bulky)
  const { token } = await registry.admin()
  const [stalled, healthy] = [await dashboard(registry, token), await dashboard(registry, token)]
  rawOf(stalled).pause()
  t.match(await entryOf(healthy, 'Disconnected (1 remaining)'), { source: 'dashboard' })
  rawOf(stalled).resume()
  t.equal((await stalled.closed).code, 1006)
  await assertAlive(healthy)
})

t.test('dashboard: each clearing of an empty log is acknowledged', async t => {
  const registry = await build(t, { dashboardWs: { maxConnections: 50, intervalMs: 100, burst: 1000 } })
  const all = await dashboards(registry, 3)
  for (let i = 0; i < 20; i++) for (const client of all) client.send({ type: 'clear_logs' })
  for (const client of all) {
    for (let i = 0; i < 20; i++) t.equal((await client.next('clear_logs_ack')).data.status, 'completed')
  }
  await registry.join('agent-after')
  await entryOf(all[2]!, "Agent 'agent-after' registered")
})

t.test('dashboard: successful and failed logins are logged', async t => {
  const registry = await build(t, quiet)
  const headers = { 'x-client-fingerprint': 'x' }
  for (const username of ['admin', 'nobody']) await registry.post('/auth/login', { body: { username, password: 'wrong' }, headers })
  const [client] = await dashboards(registry, 1) as [Client]
  const { logs } = client.all.find(({ type }) => type === 'logs').data
  const found = logs.filter(({ source }: Json) => source === 'auth').map(({ level, message, client_ip: ip }: Json) => [level, message, ip])
  t.strictSame(found, [
    ['INFO', 'Admin login succeeded: admin', '127.0.0.1'], ['WARN', 'Admin login failed: nobody', '127.0.0.1'],
    ['WARN', 'Admin login failed: admin', '127.0.0.1']
  ])
})

t.test('dashboard: failed requests raise the error rate, times are in seconds, and both alerts are raised', async t => {
  const registry = await build(t, often)
  const [client] = await dashboards(registry, 1) as [Client]
  const token = await registry.agent()
  for (let i = 0; i < 12; i++) await registry.post('/agents/report-metrics/agent-one?response_time=3&success=false', { token })
  const { data } = await nextWhere(client, 'monitoring', frame => frame.data.total_requests === 12)
  t.match(data, { error_rate: 1, avg_response_time: 3, agent_metrics: [{ error_rate: 1, success_rate: 0 }] })
  const alerts = async () => (await storedAlerts(client)).map(({ type, severity }) => `${type} ${severity}`)
  await until(async () => (await alerts()).includes('error_rate critical'))
  t.ok((await alerts()).includes('performance critical'))
})

t.test('dashboard: a fleet of one dead agent is not healthy', async t => {
  const registry = await build(t, { ...often, lease: { durationMs: 400 } })
  const [client] = await dashboards(registry, 1) as [Client]
  await registry.join()
  await nextWhere(client, 'health', ({ data }) => data.components.agents.total === 1 && data.components.agents.active === 0)
  const { data } = await client.next('health')
  t.match(data, { status: 'degraded', reason: 'No active agents available', components: { agents: { status: 'degraded' } } })
  const alerts = await storedAlerts(client)
  t.ok(alerts.some(({ type, severity }) => type === 'agent_connectivity' && severity === 'critical'))
})

t.test('dashboard: a refused socket logs no disconnect, and sockets are counted by tier', async t => {
  const registry = await build(t, quiet)
  const admin = await registry.admin()
  const client = await dashboard(registry, admin.token)
  for (const frame of [{ type: 'auth', token: 'bad' }, { type: 'nope' }]) {
    const stranger = registry.socket(path)
    await stranger.opened
    stranger.send(frame)
    await stranger.closed
  }
  await registry.post('/agents/register', { token: await registry.tempToken('agent-last', keys.other), body: registration('agent-last') })
  await entryOf(client, "Agent 'agent-last' registered")
  const received = client.all.findLast(({ type }) => type === 'logs').data.logs.filter(({ source }: Json) => source === 'dashboard')
  t.strictSame(received.map(({ message }: Json) => message), ['New connection (1 total)'])
  t.match((await registry.get('/metrics', admin)).text, /^arcp_websocket_connections\{[^}]*tier="dashboard"[^}]*\} 1$/m)
})
