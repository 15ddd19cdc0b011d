import t, { type Test } from 'tap'
import { embeddedStorage, storageHealth } from '../../../src/dashboard/health.js'
import { MemoryAgentStore } from '../../../src/storage/memory/agent-store.js'
import { Dashboard } from '../../../src/dashboard/dashboard.js'
import { resolveOptions } from '../../../src/options.js'
import { detailedHealth, health, redisHealth, type HealthServices } from '../../../src/http/health-report.js'
import { problem } from '../../../src/errors.js'
import { MemoryKeyValueStore } from '../../../src/storage/memory/kv-store.js'
import type { StoreListener, StoreSnapshot } from '../../../src/storage/agent-store.js'
import { Admission } from '../../../src/limits/admission.js'
import {
  type Answer, answerChecker, build, type Harness, keys, password, problemOf, registration, secret, sleep, until
} from '../../support/harness.js'
import { Search } from '../../../src/search/search.js'
import { openRegistry } from '../search/helper.js'
import { forge, nextWhere } from '../sockets/helper.js'
import { answerOf, events, textOf } from './feed-helper.js'

const answers = answerChecker()
const paths = ['/health/detailed', '/health/config', '/health/redis', '/health/azure']
const embed = async (texts: readonly string[]) => texts.map(() => [1, 0])

t.test('health: details of the parts are for admins', async t => {
  const registry = await build(t, { routes: { docs: true } }, answers)
  const admin = await registry.admin()
  const agent = await registry.agent('agent-a')
  const { body: document } = await registry.get('/openapi.json')
  for (const path of paths) {
    t.equal((await registry.get(path, admin)).status, 200, path)
    t.equal(problemOf(t, await registry.get(path)), 'authentication-failed')
    t.equal(problemOf(t, await registry.get(path, { token: agent })), 'insufficient-permissions')
    t.match(document.paths[path].get.responses['200'].content['application/json'].schema.properties, { timestamp: Object, version: Object })
  }
  const none = await build(t, { routes: { health: false } }, answers)
  for (const path of paths) t.equal((await none.get(path, await none.admin())).status, 404)
})

t.test('health: the details list present and absent parts', async t => {
  const registry = await build(t, {}, answers)
  const admin = await registry.admin()
  await registry.agent('agent-a')
  t.match((await registry.get('/health/detailed', admin)).body, {
    status: 'healthy',
    service: 'ARCP Registry',
    version: '2.1.2',
    uptime: 'operational',
    timestamp: /Z$/,
    components: {
      registry: { status: 'healthy', agents_total: 1, agents_alive: 1 },
      storage: { status: 'healthy', redis: 'disconnected' },
      ai_services: { status: 'not_configured', azure_openai: 'not_configured' }
    },
    detailed: {
      database: { status: 'healthy', type: 'memory' },
      storage: { redis: 'disconnected', backup_storage: 'available' },
      ai_services: { azure_openai: 'not_configured', embeddings: false, vector_search: false },
      features: {
        agent_registration: true, heartbeat_monitoring: true, metrics_collection: true, websocket_broadcasts: true, jwt_authentication: true
      },
      agents: { total_registered: 1, alive_agents: 1, dead_agents: 0, agent_types: { testing: 1 }, embeddings_stored: 0 },
      performance: { redis_connected: false, ai_client_available: false }
    }
  })
  t.match(
    (await registry.get('/health/redis', admin)).body, { status: 'unavailable', redis: 'disconnected', timestamp: /Z$/, version: '2.1.2' }
  )
  t.match(
    (await registry.get('/health/azure', admin)).body, { status: 'not_configured', details: { status: 'not_configured', reason: /\w/ } }
  )
})

t.test('health: the details reflect vectors and a store of the host', async t => {
  const memory = new MemoryAgentStore({ leaseMs: 60_000, retentionMs: 60_000 })
  const store = new Proxy({} as MemoryAgentStore, {
    get: (_target, name) => { const value = Reflect.get(memory, name); return typeof value === 'function' ? value.bind(memory) : value }
  })
  const registry = await build(t, { embed, storage: { agents: store } }, answers)
  const admin = await registry.admin()
  t.match((await registry.get('/health/azure', admin)).body, { status: 'available', details: { status: 'available' } })
  t.match((await registry.get('/health/detailed', admin)).body, {
    status: 'healthy',
    components: { ai_services: { status: 'healthy', azure_openai: 'available' } },
    detailed: {
      database: { type: 'custom' }, ai_services: { embeddings: true, vector_search: true }, performance: { ai_client_available: true }
    }
  })
  t.match((await registry.get('/health')).body, {
    ai_services: { azure_openai: 'available', embeddings: true }, storage: { redis: 'not_configured' }
  })
})

t.test('health: settings are reported by name, never by value', async t => {
  const registry = await build(t, {
    metricsScrapeToken: 'a-token-for-prometheus',
    lease: {
      durationMs: 61_234
    },
    addresses: { blocked: ['192.0.2.77'] },
    embed,
    publicFields: ['metadata']
  }, answers)
  const { body, text } = await registry.get('/health/config', await registry.admin())
  t.same(body.required_config, ['agentKeys', 'jwt.secret', 'admin.password'])
  t.same(body.optional_config, {
    azure: ['embed'],
    redis: [],
    security: ['publicFields', 'addresses.blocked', 'metricsScrapeToken'],
    agent: ['lease.durationMs'],
    service: ['sockets.agentsUpdateIntervalMs', 'sockets.drainMs', 'agentsWs.intervalMs']
  })
  for (const value of [...Object.values(keys), password, secret, 'a-token-for-prometheus', '61234', '192.0.2.77']) {
    t.notOk(text.includes(value), value)
  }
})

t.test('health: a reachable Redis is connected, and a lost one degrades the service', async t => {
  const log = { info () {}, warn () {}, error () {} }
  const options = resolveOptions({})
  const { registry } = await openRegistry()
  t.teardown(() => registry.close())
  const known = new Dashboard({ options, registry, storageKind: 'memory', now: Date.now, log })
  const search = new Search(
    { replica: registry.replica, onDifference: () => () => {}, hookTimeoutMs: 1_000, onError: error => { throw error } }
  )
  /** The same services with storage of this health. */
  const on = (storage: object): HealthServices => {
    const dashboard = Object.create(known, { health: { value: () => ({ components: { ...known.health().components, storage } }) } })
    return { options, registry, search, dashboard, storageKind: 'memory' }
  }
  t.match(redisHealth(on({ redis: 'connected', status: 'healthy' })), { status: 'healthy', redis: 'connected' })
  t.match(redisHealth(on({ redis: 'error', status: 'degraded' })), { status: 'error', redis: 'unknown' })
  t.match(redisHealth(on(storageHealth('redis', true))), { status: 'unavailable', redis: 'disconnected' })
  t.match(
    health(on(storageHealth('redis', true))), { status: 'degraded', storage: { redis: 'disconnected' }, features: { redis_storage: false } }
  )
  t.match(redisHealth(on(embeddedStorage())), { status: 'unavailable', redis: 'disconnected' })
  t.match(health(on({ redis: 'connected', status: 'healthy' })), {
    status: 'healthy', features: { redis_storage: true }, performance: { redis_connected: true }
  })
  t.match(detailedHealth(on({ redis: 'error', status: 'degraded' })), {
    status: 'degraded', components: { storage: { status: 'degraded', redis: 'disconnected' } }
  })
})

t.test('every response matched its schema', async t => { t.same(answers.findings, []) })

const leaseMs = 600
const away = () => problem('storage-unavailable', 'The store is away', { members: { retry_after: 2 }, headers: { 'retry-after': '2' } })

/** Makes calls of these methods fail while `isAway` is true. */
function guard<T extends object> (
  target: T, names: ReadonlyArray<keyof T & string>, isAway: () => boolean, note: (name: string) => void = () => {}
) {
  for (const name of names) {
    const call = target[name] as (...args: unknown[]) => Promise<unknown>
    Object.defineProperty(target, name, {
      value: async function guarded (...args: unknown[]) {
        if (!isAway()) return call.apply(target, args)
        note(name)
        throw away()
      }
    })
  }
}

/** A store with outages: it reports them, and every call fails. */
class UnreachableStore extends MemoryAgentStore {
  readonly state: MemoryKeyValueStore
  listener!: StoreListener
  isAway = false
  readonly calls: string[] = []

  constructor (lease = 60_000) {
    super({ leaseMs: lease, retentionMs: 60_000 })
    this.state = new MemoryKeyValueStore({ clock: this.now })
    guard(this as UnreachableStore, [
      'register', 'update', 'remove', 'setState', 'renew', 'report', 'expire', 'release', 'extend'
    ], () => this.isAway, name => this.calls.push(name))
    guard(this.state, ['get', 'put', 'take', 'list', 'takeTokens', 'returnTokens'], () => this.isAway)
  }

  override async open (listener: StoreListener): Promise<StoreSnapshot> {
    this.listener = listener
    return super.open(listener)
  }

  leave (): void {
    this.isAway = true
    this.listener.availability('connect ECONNREFUSED 10.1.2.3:6379')
  }

  comeBack (): void {
    this.isAway = false
    this.listener.availability(null)
  }
}

async function open (t: Test, lease?: number): Promise<{ registry: Harness, store: UnreachableStore }> {
  const store = new UnreachableStore(lease)
  return {
    store,
    registry: await build(t, {
      storage: {
        agents: store, kv: store.state
      },
      sockets: { agentsUpdateIntervalMs: 20, drainMs: 100 },
      ...(lease !== undefined && { lease: { durationMs: lease } })
    })
  }
}

t.test('store outage: each write is answered 503 at once, with spread retry times', async t => {
  const { registry, store } = await open(t)
  const token = await registry.agent('agent-one')
  const temp = await registry.tempToken('agent-two')
  const admin = await registry.admin()
  store.leave()
  const body = registration('agent-two')
  const writes: Array<() => Promise<Answer>> = [
    () => registry.post('/agents/register', { token: temp, body }),
    () => registry.post('/agents/agent-one/heartbeat', { token }),
    () => registry.post('/agents/agent-one/status', { token, body: { status: 'draining' } }),
    () => registry.post('/agents/agent-one/metrics', { token, body: { success_rate: 1 } }),
    () => registry.post('/agents/report-metrics/agent-one?response_time=1', { token }),
    () => registry.patch('/agents/agent-one', { token, body: { name: 'Renamed' } }),
    () => registry.delete('/agents/agent-one', { token }),
    () => registry.delete('/agents/agent-one', admin),
    () => registry.post(
      '/auth/agent/request_temp_token', { body: { agent_id: 'agent-three', agent_type: 'testing', agent_key: 'a-key-that-is-wrong' } }
    ),
    () => registry.post('/auth/login', { headers: admin.headers, body: { username: 'admin', password } }),
    () => registry.post('/auth/set_pin', { ...admin, body: { pin: 'a-pin-4711' } }),
    () => registry.post('/ws-tickets', { token }),
    () => registry.post('/tokens/revoke', { ...admin, body: { agent_id: 'agent-one' } }),
    () => registry.post('/auth/logout', admin)
  ]
  for (const write of writes) {
    const started = performance.now()
    const answer = await write()
    t.equal(problemOf(t, answer), 'storage-unavailable')
    t.equal(answer.status, 503)
    t.ok(Number(answer.headers.get('retry-after')) >= 1)
    t.equal(answer.headers.get('retry-after'), String(answer.body.retry_after))
    t.ok(performance.now() - started < 5000)
  }
  const refused = await Promise.all(Array.from({ length: 50 }, () => writes[1]!()))
  t.ok(new Set(refused.map(({ headers }) => headers.get('retry-after'))).size > 1, 'not all at the same instant')
  await t.rejects(registry.app.agentRegistry.heartbeat('agent-one'), { code: 'AGENT_REGISTRY_STORAGE_UNAVAILABLE' })
  store.comeBack()
  t.equal((await registry.post('/agents/register', { token: temp, body })).status, 200, 'a refused request may be repeated')
  for (const write of writes.slice(1, 6)) t.equal((await write()).status, 200)
})

t.test('store outage: reads continue with the last state and state its age', async t => {
  const { registry, store } = await open(t)
  const token = await registry.agent('agent-one')
  const admin = await registry.admin()
  const reads: Array<[string, object]> = [
    ['/agents', { token }], ['/agents/agent-one', { token }], ['/agents/agent-one/metrics', { token }],
    ['/agents/search?query=Agent', { token }], ['/agents/changes', { token }],
    ['/agents/stats', admin], ['/public/discover', {}], ['/public/agent/agent-one', {}], ['/public/stats', {}]
  ]
  const since = Date.now()
  store.leave()
  for (const [path, call] of reads) {
    const { status, headers } = await registry.get(path, call)
    t.equal(status, 200, path)
    const stale = Date.parse(headers.get('x-registry-stale')!)
    t.ok(stale >= since - 1 && stale <= Date.now(), path)
    t.equal(headers.get('x-registry-revision'), registry.app.agentRegistry.revision, path)
  }
  store.comeBack()
  for (const [path, call] of reads) t.equal((await registry.get(path, call)).headers.get('x-registry-stale'), null, path)
})

t.test('store outage: health, readiness, dashboard and Prometheus report it; only admins see the address', async t => {
  const { registry, store } = await open(t)
  const admin = await registry.admin()
  const dashboard = registry.socket('/dashboard/ws')
  await dashboard.opened
  dashboard.send({ type: 'auth', token: admin.token })
  t.match(await dashboard.next('health'), { data: { components: { storage: { status: 'healthy' } } } })
  t.match((await registry.get('/metrics', admin)).text, /^agent_registry_store_up 1$/m)
  store.leave()
  const health = await registry.get('/health')
  t.match(health, { status: 200, body: { status: 'degraded', reason: /unavailable since \d{4}-.*Z/ } })
  t.notOk(health.text.includes('10.1.2.3'))
  t.match(await registry.get('/health/ready'), { status: 503, body: { status: 'storage-unavailable' } })
  t.match(await registry.get('/health/live'), { status: 200, body: { status: 'live' } })
  t.match((await registry.get('/health/detailed', admin)).body, { status: 'degraded', detailed: { database: { status: 'degraded' } } })
  t.match((await registry.get('/metrics', admin)).text, /^agent_registry_store_up 0$/m)
  dashboard.send({ type: 'refresh_request' })
  t.match(await nextWhere(dashboard, 'health', ({ data }) =>
    data.status !== 'healthy'), { data: { status: 'degraded', reason: /10\.1\.2\.3/, components: { storage: { status: 'degraded' } } } })
  await nextWhere(dashboard, 'logs', ({ data }) =>
    data.logs.some(({ level, message }: { level: string, message: string }) => level === 'ERR' && /store is unreachable/.test(message)))
  store.comeBack()
  await nextWhere(dashboard, 'logs', ({ data }) =>
    data.logs.some(({ message }: { message: string }) => /store is reachable again/.test(message)))
  t.match((await registry.get('/health')).body, { status: 'healthy', reason: undefined })
  t.match(await registry.get('/health/ready'), { status: 200 })
})

t.test('store outage: sockets and streams stay open, frames that need the store get an error, no agent expires', async t => {
  const { registry, store } = await open(t, leaseMs)
  const agent = await registry.agentSocket(await registry.agent('agent-one'))
  const beating = await registry.agent('agent-two')
  const watcher = await registry.watcher()
  watcher.send({ type: 'watch', requestId: 'w' })
  await watcher.next('ack')
  const stream = await events(registry, { token: beating })
  const dead: string[] = []
  registry.app.agentRegistry.events.on('dead', ({ agent_id: id }) => dead.push(id))
  store.leave()
  const swept = store.calls.length
  for (const frame of [{ type: 'status', status: 'draining' }, { type: 'goodbye' }]) {
    agent.send({ ...frame, requestId: frame.type })
    t.match(await agent.next('error'), { code: 'storage_unavailable', requestId: frame.type, retryAfterMs: Number })
  }
  // Pings of the server and pongs of the client continue meanwhile.
  await sleep(3 * leaseMs)
  t.strictSame(store.calls.slice(swept).filter(name => name === 'expire' || name === 'extend'), [])
  t.ok(store.calls.includes('renew'), 'heartbeats were attempted')
  const lastSeen = registry.app.agentRegistry.get('agent-one')!.last_seen
  store.comeBack()
  t.equal((await registry.post('/agents/agent-two/heartbeat', { token: beating })).status, 200)
  await until(() => registry.app.agentRegistry.get('agent-one')!.last_seen > lastSeen)
  await sleep(leaseMs / 2)
  t.strictSame(dead, [])
  t.ok(stream.isOpen)
  t.equal(agent.ws.readyState, agent.ws.OPEN)
  t.equal(watcher.ws.readyState, watcher.ws.OPEN)
  await until(() => dead.length > 0)
  t.strictSame(dead, ['agent-two'], 'silent agents expire afterwards as usual')
})

t.test('store outage: an upgrade that needs the store is answered as a request is, a token frame by an error', async t => {
  const { registry, store } = await open(t)
  const { body: { ticket } } = await registry.post('/ws-tickets', { token: await registry.join() })
  const elsewhere = forge((await registry.admin()).token, { sid: 'opened-elsewhere' })
  store.leave()
  const refused = await registry.socket(`/agents/ws?ticket=${ticket}`).refused
  t.match(refused, { status: 503, headers: { 'retry-after': /^[1-9]/ } })
  t.match(JSON.parse(refused.text).type, /storage-unavailable$/)
  const late = registry.socket('/agents/ws')
  await late.next('auth_required')
  // Another process may have opened the session.
  late.send({ token: elsewhere, requestId: 'late' })
  t.match(await late.next('error'), { code: 'storage_unavailable', requestId: 'late', retryAfterMs: Number })
  store.comeBack()
  late.send({ token: await registry.join('agent-late') })
  await late.next('auth_success')
  const socket = registry.socket(`/agents/ws?ticket=${ticket}`)
  await socket.next('auth_success')
  t.pass('the ticket was not spent')
})

t.test('store outage: a request waits at most a second for a revision that has not arrived', async t => {
  const { registry, store } = await open(t)
  const token = await registry.join('agent-one')
  const [epoch, n] = registry.app.agentRegistry.revision.split(':') as [string, string]
  const ask = (revision: string, path = '/agents') => registry.get(path, { token, headers: { 'x-min-revision': revision } })
  t.equal((await ask(`${epoch}:${n}`)).status, 200)
  const [waiting] = [ask(`${epoch}:${Number(n) + 1}`), await sleep(100)]
  await registry.join('agent-two')
  const answer = await waiting
  t.match(answer, { status: 200, body: [{ agent_id: 'agent-one' }, { agent_id: 'agent-two' }] })
  t.equal(answer.headers.get('x-registry-revision'), `${epoch}:${Number(n) + 1}`)
  for (const path of [
    '/agents', '/public/discover', '/public/stats', '/agents/search?query=Agent', '/agents/agent-one', '/agents/events'
  ]) {
    const late = await ask(`${epoch}:${Number(n) + 50}`, path)
    t.equal(problemOf(t, late), 'storage-unavailable', path)
    t.ok(Number(late.headers.get('retry-after')) >= 1)
  }
  t.equal(problemOf(t, await ask('other:1')), 'precondition-failed')
  for (const wrong of ['x', `${epoch}:`, `${epoch}:1:2`, '']) {
    t.match(await ask(wrong), { status: 422, body: { errors: [{ path: '/headers/x-min-revision' }] } })
  }
  const moved = ask('moved:3')
  await sleep(100)
  store.listener.reloaded({ epoch: 'moved', revision: 3, agents: [] })
  t.match(await moved, { status: 200, body: [] })
})

t.test('admission: registrations beyond the rate get spread retry times', async t => {
  const registry = await build(t, { admission: { registrationsPerSecond: 1, burst: 3 } })
  const admin = await registry.admin()
  const answers = await Promise.all(Array.from({ length: 10 }, (_, i) =>
    registry.post('/agents/register', { ...admin, body: registration(`agent-${i}`) })))
  const [passed, refused] = [answers.filter(({ status }) => status === 200), answers.filter(({ status }) => status === 429)]
  t.ok(passed.length >= 3 && passed.length < 10, `${passed.length} registered`)
  t.equal(passed.length + refused.length, 10)
  for (const answer of refused) t.equal(problemOf(t, answer), 'rate-limit-exceeded')
  t.ok(new Set(refused.map(({ headers }) => headers.get('retry-after'))).size >= 3, 'each in another second')
  t.equal((await registry.post('/agents/agent-x/heartbeat', admin)).status, 404, 'other requests are admitted')
  await t.resolves(registry.join('by-the-host'))
})

t.test('admission: the rate of new sockets and streams is limited', async t => {
  const registry = await build(t, { admission: { upgradesPerSecond: 1, burst: 2 } })
  const token = await registry.join()
  const sockets = Array.from({ length: 6 }, () => registry.socket('/public/ws'))
  const outcomes = await Promise.all(sockets.map(socket => Promise.race([socket.opened.then(() => 'open' as const), socket.refused])))
  const refused = outcomes.filter(outcome => outcome !== 'open')
  t.ok(refused.length >= 2 && refused.length <= 4, `${refused.length} refused`)
  for (const outcome of refused) {
    t.match(outcome, { status: 503, headers: { 'retry-after': /^[1-9]/, connection: 'close' } })
    t.match(JSON.parse((outcome as { text: string }).text).type, /too-many-connections$/)
  }
  const stream = await answerOf(registry, '/agents/events', { authorization: `Bearer ${token}` })
  t.equal(stream.statusCode, 503)
  t.match(JSON.parse(await textOf(stream)).type, /too-many-connections$/)
})

t.test('admission: retry times are even, at most half a minute plus the spread of a second away', async t => {
  let now = 1_000_000
  const admission = new Admission({ perSecond: 100, burst: 10, now: () => now })
  const waits = Array.from({ length: 1000 }, () => admission.take())
  t.equal(waits.filter(wait => wait === 0).length, 10)
  const perSecond = new Map<number, number>()
  for (const wait of waits.slice(10)) perSecond.set(Math.floor(wait / 1000), (perSecond.get(Math.floor(wait / 1000)) ?? 0) + 1)
  t.ok(perSecond.size >= 10 && [...perSecond.values()].every(count => count <= 150), JSON.stringify([...perSecond]))
  for (let i = 0; i < 10_000; i++) admission.take()
  t.ok(admission.take() <= 31_000)
  now += 60_000
  t.equal(admission.take(), 0)
})

t.test('admission: clients that obey are admitted in about the time that the rate needs', async t => {
  let now = 0
  const admission = new Admission({ perSecond: 1000, burst: 500, now: () => now })
  const stepMs = 10
  const due = new Map<number, number>([[0, 20_000]])
  let [waiting, tries] = [20_000, 0]
  for (let step = 0; waiting > 0 && step < 10_000; step++) {
    now = step * stepMs
    for (let left = due.get(step) ?? 0; left > 0; left--) {
      const wait = admission.take()
      tries++
      if (wait === 0) waiting--
      // Clients wait whole seconds plus a margin.
      const at = step + Math.ceil((Math.ceil(wait / 1000) * 1000 + 500 * Math.random()) / stepMs)
      if (wait > 0) due.set(at, (due.get(at) ?? 0) + 1)
    }
    due.delete(step)
  }
  t.equal(waiting, 0)
  t.ok(now < 60_000, `all in after ${now} ms`)
  t.ok(tries < 4 * 20_000, `with ${tries} tries`)
})
