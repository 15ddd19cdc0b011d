import { once } from 'node:events'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import fastify from 'fastify'
import t, { type Test } from 'tap'
import agentRegistry, { MemoryAgentStore } from '../../../src/index.js'
import { originCheck } from '../../../src/auth/origins.js'
import { build, type Client, type Harness, problemOf, sleep, until, withDefaults } from '../../support/harness.js'
import { assertAlive, expired, forge, nextWhere, refusalOf } from './helper.js'

const paths = ['/public/ws', '/agents/ws', '/dashboard/ws']

type Refusal = Awaited<Client['refused']>

/** The outcome of an upgrade: `open` or its refusal. */
async function outcome (client: Client): Promise<'open' | Refusal> {
  return Promise.race([client.opened.then(() => 'open' as const, () => client.refused), client.refused])
}

/** The suffix of the problem of a refused upgrade, after checking its shape. */
function refusedAs (t: Test, { status, headers, text }: Refusal): string {
  return problemOf(t, { status, headers: new Headers(headers as Record<string, string>), body: JSON.parse(text), text })
}

const from = (address: string) => ({ headers: { 'x-forwarded-for': address } })
const proxied = { server: { trustProxy: true } }

t.test('connection limit: sockets of all tiers are limited per address, whatever their principal', async t => {
  const registry = await build(t, { sockets: { maxConnectionsPerAddress: 3 } }, proxied)
  const token = await registry.join()
  const [anybody, unknown, known] = [registry.socket('/public/ws', [], from('192.0.2.1')), registry.socket(
    '/agents/ws', [], from('192.0.2.1')
  ), registry.socket('/agents/ws', [], { headers: { ...from('192.0.2.1').headers, authorization: `Bearer ${token}` } })]
  for (const client of [anybody, unknown, known]) t.equal(await outcome(client), 'open')
  for (const path of paths) {
    const refusal = await registry.socket(path, [], from('192.0.2.1')).refused
    t.equal(refusedAs(t, refusal), 'too-many-connections')
    t.match(refusal, { status: 503, headers: { 'retry-after': '5', connection: 'close' } }, path)
  }
  t.equal(await outcome(registry.socket('/public/ws', [], from('192.0.2.2'))), 'open', 'a neighbour may connect')
  await assertAlive(anybody)
  unknown.terminate()
  await until(async () => await outcome(registry.socket('/public/ws', [], from('192.0.2.1'))) === 'open')
  t.equal((await registry.socket('/public/ws', [], from('192.0.2.1')).refused).status, 503, 'one slot was free, not two')
})

t.test('connection limit: an IPv6 network counts as one address', async t => {
  const registry = await build(t, { sockets: { maxConnectionsPerAddress: 2 } }, proxied)
  const open = (address: string) => outcome(registry.socket('/public/ws', [], from(address)))
  t.strictSame([await open('2001:db8::1'), await open('2001:db8::2')], ['open', 'open'])
  t.match(await open('2001:db8::3'), { status: 503 })
  t.equal(await open('2001:db8:0:1::1'), 'open')
})

t.test('connection limit: refused, abandoned and undecided upgrades return their slot', async t => {
  let asked = 0
  const registry = await build(t, {
    sockets: { maxConnectionsPerAddress: 2 },
    limits: { hookTimeoutMs: 400 },
    authenticate: () => { asked++; return new Promise(() => {}) }
  })
  for (let i = 0; i < 5; i++) t.equal((await registry.socket('/public/info').refused).status, 400)
  const hanging = [registry.socket('/agents/ws?token=whose'), registry.socket('/agents/ws?token=whose')]
  await until(() => asked === 2)
  t.equal((await registry.socket('/public/ws').refused).status, 503, 'pending decisions count')
  hanging[0]!.terminate()
  const refusal = await hanging[1]!.refused
  t.equal(refusedAs(t, refusal), 'hook-failed')
  const clients = [registry.socket('/public/ws'), registry.socket('/public/ws')]
  await until(async () => {
    for (const [index, client] of clients.entries()) if (await outcome(client) !== 'open') clients[index] = registry.socket('/public/ws')
    return (await Promise.all(clients.map(outcome))).every(result => result === 'open')
  })
})

t.test('connection limit: concurrent upgrades with late decisions do not exceed it', async t => {
  const registry = await build(t, { agentsWs: { maxConnections: 3 } }, {
    before: app => { app.addHook('preHandler', async () => { await sleep(50) }) }
  })
  const headers = { authorization: `Bearer ${await registry.join()}` }
  const outcomes = await Promise.all(Array.from({ length: 10 }, () => outcome(registry.socket('/agents/ws', [], { headers }))))
  t.equal(outcomes.filter(result => result === 'open').length, 3)
})

t.test('connection limit: a client without access to the dashboard uses no slot of an admin', async t => {
  const registry = await build(t, { dashboardWs: { maxConnections: 1, timeoutMs: 60_000 } })
  const agent = { headers: { authorization: `Bearer ${await registry.join()}` } }
  const stranger = registry.socket('/dashboard/ws', [], agent)
  await stranger.opened
  stranger.ws.pause()
  const { token, headers } = await registry.admin()
  const admin = registry.socket('/dashboard/ws', [], { headers: { ...headers, authorization: `Bearer ${token}` } })
  await admin.next('monitoring')
  t.equal((await registry.socket('/dashboard/ws', [], agent).refused).status, 503, 'and now it is full')
  stranger.ws.resume()
  t.equal((await stranger.closed).code, 4003)
})

t.test('upgrades: checks of HTTP requests apply to upgrades too, on every tier', async t => {
  const registry = await build(
    t, { addresses: { blocked: ['192.0.2.66', '2001:db8:66::/48'] }, limits: { maxHeaderBytes: 1000, maxQueryParams: 3 } }, proxied
  )
  for (const path of paths) {
    for (const address of ['192.0.2.66', '::ffff:192.0.2.66', '2001:db8:66::1']) {
      t.equal(refusedAs(t, await registry.socket(path, [], from(address)).refused), 'insufficient-permissions', `${path} ${address}`)
    }
    t.equal(refusedAs(t, await registry.socket(path, [], { headers: { padding: 'x'.repeat(1000) } }).refused), 'headers-too-large', path)
    t.equal(refusedAs(t, await registry.socket(`${path}?a&b&c&d`).refused), 'request-error', path)
    t.equal(await outcome(registry.socket(`${path}?a&b&c`)), 'open', path)
  }
  const denying = await build(t, { addresses: { defaultDeny: true, allowed: ['192.0.2.0/24'] } }, proxied)
  t.equal((await denying.socket('/public/ws').refused).status, 403)
  t.equal(await outcome(denying.socket('/public/ws', [], from('192.0.2.1'))), 'open')
})

t.test('upgrades: a refused one does not count against the rate of new sockets', async t => {
  const registry = await build(
    t, { admission: { upgradesPerSecond: 1, burst: 1 }, sockets: { allowedOrigins: ['https://app.example.com'] } }
  )
  for (let i = 0; i < 5; i++) t.equal((await registry.socket('/public/ws', [], { origin: 'https://evil.example' }).refused).status, 403)
  t.equal(await outcome(registry.socket('/public/ws')), 'open')
})

const listed = [
  'https://app.example.com', 'http://localhost:3000/', 'HTTPS://*.Example.org', 'https://pr-*.preview.dev:8443',
  'chrome-extension://abcdef', 'http://[::1]:8080'
]
const mayCome = [
  'https://app.example.com', 'HTTPS://APP.example.COM', 'https://app.example.com:443', 'http://localhost:3000', 'https://a.example.org',
  'https://a-b.example.org:443',
  'https://pr-12.preview.dev:8443', 'chrome-extension://abcdef', 'http://[::1]:8080'
]
const mayNot = [
  'null', '', 'nonsense', 'http://app.example.com', 'https://app.example.com:8443', 'https://app.example.com.evil.net',
  'https://evil-app.example.com', 'https://xapp.example.com',
  'https://appxexample.com', 'http://localhost', 'http://localhost:30000', 'https://example.org', 'https://a.b.example.org',
  'https://evil.net/.example.org', 'https://evil.net?.example.org',
  'https://pr-1.x.preview.dev:8443', 'https://pr-1.preview.dev', 'chrome-extension://abcdefg', 'https://app.example.com, https://evil.net'
]

t.test('origins: browsers open sockets from listed origins only, and other clients as before', async t => {
  const registry = await build(t, { sockets: { allowedOrigins: listed } })
  for (const path of paths) {
    const refusal = await registry.socket(path, [], { headers: { origin: 'https://evil.example' } }).refused
    t.equal(refusedAs(t, refusal), 'insufficient-permissions')
    t.equal(refusal.headers.connection, 'close')
    t.equal(await outcome(registry.socket(path, [], { headers: { origin: 'https://app.example.com' } })), 'open', path)
    t.equal(await outcome(registry.socket(path)), 'open', `${path}, not a browser`)
  }
  for (const origin of mayCome) t.equal(await outcome(registry.socket('/public/ws', [], { headers: { origin } })), 'open', origin)
  for (const origin of mayNot) {
    t.match(await outcome(registry.socket('/public/ws', [], { headers: { origin } })), { status: 403 }, `'${origin}'`)
  }
  t.equal((await registry.get('/public/stats', { headers: { origin: 'https://evil.example' } })).status, 200,
    'pages read over HTTP as the host configures')
})

t.test('origins: without a list, and with `*` in it, every origin is allowed', async t => {
  t.equal(originCheck([]), null)
  t.equal(originCheck(['https://app.example.com', '*']), null)
  t.ok(originCheck(['null'])!('null'), 'pages without an origin too, once listed')
  const registry = await build(t)
  for (const origin of ['https://evil.example', 'null']) {
    t.equal(await outcome(registry.socket('/public/ws', [], { headers: { origin } })), 'open', origin)
  }
})

t.test('origins: an invalid entry stops the start and is named', async t => {
  for (const wrong of [
    'app.example.com', 'https://', 'https://a.com/path', 'https://u@a.com', 'https://a.com:99999', 'https://*.exa mple.com',
    'https://a.com?x', '*.example.com'
  ]) {
    const app = fastify()
    const start = (async () => await app.register(agentRegistry, withDefaults({ sockets: { allowedOrigins: [wrong] } })))()
    await t.rejects(start, { code: 'AGENT_REGISTRY_INVALID_OPTIONS', message: /sockets\.allowedOrigins/ }, wrong)
    await app.close().catch(() => {})
  }
})

t.test('upgrades: slow, partial and malformed ones delay no other client', async t => {
  const registry = await build(t)
  const { port } = registry.app.server.address() as AddressInfo
  const whole = 'GET /public/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
    'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n'
  const halves = Array.from({ length: 50 }, () => connect(port, '127.0.0.1'))
  for (const half of halves) half.write(whole.slice(0, -2))
  const slow = connect(port, '127.0.0.1')
  for (const byte of whole) {
    slow.write(byte)
    await sleep(1)
  }
  const [answer] = await once(slow, 'data')
  t.match(String(answer), /^HTTP\/1.1 101 /)
  await assertAlive(await registry.watcher())
  for (const socket of [...halves, slow]) socket.destroy()
  const wrong = connect(port, '127.0.0.1')
  wrong.end(whole.replace('Version: 13', 'Version: 1'))
  t.match(await text(wrong), /^HTTP\/1.1 400 /)
  t.equal(await slotsOf(registry), 1)
})

/** Number of counted sockets on the public tier. */
async function slotsOf (registry: Harness): Promise<number> {
  const { text } = await registry.get('/metrics', await registry.admin())
  return Number(/^arcp_websocket_connections\{tier="public"\} (\d+)/m.exec(text)?.[1])
}

const rawOf = ({ ws }: Client) => (ws as unknown as { _socket: Socket })._socket

async function timed (work: () => Promise<unknown>): Promise<number> {
  const started = performance.now()
  await work()
  return performance.now() - started
}

/** The first frame of an agents socket, or its refusal or close. */
async function firstOf (client: Client) {
  return Promise.race([client.next(), client.closed, client.refused])
}

t.test('unregistering: with open sockets it returns at once, blocks no request and is broadcast', async t => {
  const registry = await build(t)
  const watcher = await registry.watcher()
  const tokens = await Promise.all(['agent-0', 'agent-1', 'agent-2'].map(id => registry.join(id)))
  const agent = await registry.agentSocket(tokens[2]!)
  await nextWhere(watcher, 'agents_update', ({ data }) => data.total_count === 3)
  const took = await timed(() => Promise.all([
    registry.delete('/agents/agent-0', { token: tokens[0] }),
    registry.app.agentRegistry.unregister('agent-1'),
    registry.post('/agents/agent-2/heartbeat', { token: tokens[2] }),
    registry.get('/public/discover')
  ]))
  t.ok(took < 2000, `${took} ms`)
  await nextWhere(watcher, 'agents_update', ({ data }) => data.total_count === 1)
  await nextWhere(agent, 'list', list => list.length === 1)
})

t.test('lease monitor: a sweep of many agents with open sockets is broadcast and blocks no request', async t => {
  const registry = await build(t, { lease: { durationMs: 300, retentionMs: 100, cleanupIntervalMs: 50, preservation: false } })
  const watcher = await registry.agentSocket((await registry.admin()).token)
  for (let i = 0; i < 20; i++) await registry.join(`agent-${i}`)
  await nextWhere(watcher, 'list', list => list.length > 0)
  await nextWhere(watcher, 'list', list => list.length === 0)
  t.ok(await timed(() => registry.join('agent-next')) < 1000)
})

t.test('tokens: a forged token with the name of the admin ends no session', async t => {
  const registry = await build(t)
  const admin = await registry.admin()
  const forged = forge(admin.token, {}, 'another secret of thirty-two characters')
  const client = registry.socket('/agents/ws')
  await client.next('auth_required')
  client.send({ token: forged })
  t.equal((await client.next('auth_error')).message, 'Invalid token')
  await registry.socket(`/agents/ws?token=${forged}`).closed
  await registry.get('/agents', { token: forged })
  t.equal((await registry.get('/auth/session_status', admin)).status, 200)
})

t.test('agents: a stored agent of a type no longer allowed breaks no tier', async t => {
  const store = new MemoryAgentStore({ leaseMs: 60_000, retentionMs: 60_000 })
  await build(t, { storage: { agents: store } }).then(async registry => {
    await registry.join('agent-old', { agent_type: 'networking' })
    await registry.app.close()
  })
  const registry = await build(t, { storage: { agents: store }, allowedAgentTypes: ['testing'] })
  const [watcher, agent] = [await registry.watcher(), await registry.agentSocket(await registry.join())]
  watcher.send({ type: 'get_discovery' })
  t.equal((await watcher.next('discovery_data')).data.pagination.total_agents, 2)
  t.match(agent.all.find(Array.isArray), { length: 2 })
  t.equal((await registry.get('/public/discover')).body.length, 2)
})

t.test('sockets: an anonymous client that does not read delays no registration or other client', async t => {
  const registry = await build(t, { sockets: { agentsUpdateIntervalMs: 1, maxUpdateBytes: 1_000_000 } })
  const [stalled, healthy] = [await registry.watcher(), await registry.watcher()]
  rawOf(stalled).pause()
  let slowest = 0
  for (let i = 0; i < 60; i++) {
    slowest = Math.max(slowest, await timed(() => registry.join(`agent-${i % 8}`, { metadata: { text: ['x'.repeat(100_000)], round: i } })))
    await new Promise(setImmediate)
  }
  t.ok(slowest < 1000, `the slowest of 60 took ${slowest} ms`)
  await nextWhere(healthy, 'agents_update', ({ data }) =>
    data.agents.some(({ metadata }: { metadata: { round: number } }) => metadata.round === 59))
  stalled.terminate()
})

t.test('sockets: temporary, role-less, removed agents\' and expired tokens are refused', async t => {
  const registry = await build(t)
  const token = await registry.join()
  const removed = await registry.join('agent-gone')
  await registry.app.agentRegistry.unregister('agent-gone')
  const bad = [await registry.tempToken('agent-two'), forge(
    token, { role: undefined }
  ), forge(token, { typ: undefined }), removed, expired(token), forge(token, { aud: 'arcp:validate' })]
  for (const text of bad) {
    const client = registry.socket('/agents/ws')
    await client.next('auth_required')
    client.send({ token: text })
    t.equal((await client.next()).type, 'auth_error')
    t.equal((await client.closed).code, 1008)
  }
})

t.test('sockets: a token is checked again while its socket is open', async t => {
  const registry = await build(t, { jwt: { expiresInMs: 1500 } })
  const client = await registry.agentSocket(await registry.join())
  t.equal((await client.closed).code, 4002)
})

t.test('sockets: a flood of sockets without a token is bounded and uses no slot of other clients', async t => {
  const registry = await build(t, { agentsWs: { maxConnections: 2 }, sockets: { maxUnauthenticated: 5 } })
  const token = await registry.join()
  const flood = Array.from({ length: 20 }, () => registry.socket('/agents/ws'))
  const outcomes = await Promise.all(flood.map(firstOf))
  t.equal(outcomes.filter(({ status }) => status === 503).length, 15)
  t.equal((await firstOf(registry.socket('/agents/ws', [], { headers: { authorization: `Bearer ${token}` } }))).type, 'auth_success')
})

t.test('sockets: a blocked address opens none, and the frame rate is limited', async t => {
  const registry = await build(t, { addresses: { blocked: ['127.0.0.2'] }, publicWs: { burst: 5, messagesPerSecond: 1 } })
  for (const path of ['/public/ws', '/agents/ws']) {
    t.equal((await registry.socket(path, [], { localAddress: '127.0.0.2' }).refused).status, 403, path)
  }
  const client = await registry.watcher()
  for (let i = 0; i < 10; i++) client.send({ type: 'ping' })
  t.equal((await client.next('error')).code, 'rate_limited')
})

t.test('sockets: a token in a URL is not logged, nor are its claims', async t => {
  let log = ''
  const stream = new Writable({ write (chunk, _encoding, done) { log += chunk; done() } })
  const registry = await build(t, {}, { server: { logger: { level: 'trace', stream } } })
  const token = await registry.join()
  await firstOf(registry.socket(`/agents/ws?token=${token}`))
  await until(() => log.includes('incoming request'))
  t.notOk(log.includes(token))
  t.notOk(log.includes(JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()).jti))
})

t.test('sockets: the cost of a discovery page depends on the page, not on the registry size', async t => {
  const registry = await build(t, { publicWs: { burst: 1000 } })
  const ask = async (client: Client) => {
    for (let i = 0; i < 100; i++) client.send({ type: 'get_discovery', page_size: 1 })
    for (let i = 0; i < 100; i++) await client.next('discovery_data')
  }
  const clients = await Promise.all(Array.from({ length: 5 }, () => registry.watcher()))
  for (const client of clients) client.send({ type: 'watch' })
  for (let i = 0; i < 3000; i++) await registry.join(`agent-${i}`)
  const took = await timed(() => Promise.all(clients.map(ask)))
  t.ok(took < 5000, `500 responses in ${took} ms`)
})

t.test('sockets: statistics are built once for all sockets', async t => {
  const registry = await build(t, { publicWs: { intervalMs: 400 } })
  await registry.join()
  const clients = await Promise.all(Array.from({ length: 20 }, () => registry.watcher()))
  const stamps = await Promise.all(clients.map(async client => (await client.next('stats_update')).timestamp))
  t.ok(new Set(stamps).size < 10, `${new Set(stamps).size} different frames for 20 sockets`)
})

t.test('sockets: no frame is too large for a client with a limit of 1 MiB', async t => {
  const registry = await build(t, { sockets: { maxAgentsPerUpdate: 10_000 } })
  for (let i = 0; i < 400; i++) await registry.join(`agent-${i}`, { ai_context: 'x'.repeat(5000) })
  const token = await registry.join()
  const clients = [registry.socket(
    '/public/ws', [], { maxPayload: 1_048_576 }
  ), registry.socket('/agents/ws', [], { maxPayload: 1_048_576, headers: { authorization: `Bearer ${token}` } })]
  const [watcher, agent] = clients as [Client, Client]
  t.match(await agent.next('agents_truncated'), { total_count: 401 })
  await registry.join('agent-last')
  t.match(await watcher.next('agents_update'), { data: { truncated: true, total_count: 402 } })
  watcher.send({ type: 'get_discovery', page_size: 100 })
  t.equal((await watcher.next('discovery_data')).data.agents.length, 100)
  for (const client of clients) {
    client.send({ type: 'watch', snapshot: true })
    await nextWhere(client, 'agents_snapshot', ({ last }) => last)
    await assertAlive(client)
  }
})

t.test('sockets: a frame of an agent is answered at once, and so is the ping after it', async t => {
  const registry = await build(t, { agentsWs: { intervalMs: 5000 } })
  const client = await registry.agentSocket(await registry.join())
  const took = await timed(async () => {
    client.send({ type: 'something' })
    client.send('ping')
    client.send({ type: 'ping' })
    t.equal((await client.next()).code, 'unknown_type')
    t.equal(await client.next(), 'pong')
    t.equal((await client.next()).type, 'pong')
  })
  t.ok(took < 1000, `${took} ms`)
})

t.test('sockets: deaths are broadcast, and many registrations are batched into few lists', async t => {
  const registry = await build(t, { lease: { durationMs: 1000, preservation: false }, sockets: { agentsUpdateIntervalMs: 500 } })
  const watcher = await registry.watcher()
  await Promise.all(Array.from({ length: 50 }, (_, i) => registry.join(`agent-${i}`)))
  await nextWhere(watcher, 'agents_update', ({ data }) => data.total_count === 50)
  t.ok(watcher.all.length < 10, `${watcher.all.length} frames for 50 registrations`)
  await nextWhere(watcher, 'agents_update', ({ data }) => data.total_count === 0)
  t.ok(watcher.all.length < 20)
})

t.test('sockets: arrays, numbers, null and binary frames are answered and close nothing', async t => {
  const registry = await build(t)
  for (const client of [await registry.watcher(), await registry.agentSocket(await registry.join())]) {
    for (const frame of ['[1]', '5', 'null', '"ping"']) t.equal((await refusalOf(client, frame)).code, 'malformed_message')
    t.equal((await refusalOf(client, Buffer.from([1, 2, 3]))).code, 'unsupported_encoding')
  }
})

t.test('sockets: a full tier refuses the upgrade, and a timeout has its own close code', async t => {
  const registry = await build(t, { publicWs: { maxConnections: 1 }, agentsWs: { timeoutMs: 200 } })
  await registry.watcher()
  const { status, headers, text } = await registry.socket('/public/ws').refused
  t.match([status, headers['retry-after'], JSON.parse(text).detail], [503, '5', 'Too many connections'])
  t.strictSame(await registry.socket('/agents/ws').closed, { code: 1008, reason: 'Authentication timeout' })
  const client = registry.socket('/agents/ws')
  client.opened.then(() => client.send('not json'))
  t.strictSame(await client.closed, { code: 1008, reason: 'Invalid JSON' })
})

async function openCount (registry: Harness): Promise<number> {
  return (await registry.get('/agents/stats', await registry.admin())).body.performance.active_websocket_connections
}

t.test('sockets: an abandoned socket is closed', async t => {
  const registry = await build(t, { publicWs: { pingIntervalMs: 200 } })
  const stalled = await registry.watcher()
  rawOf(stalled).pause()
  await until(async () => await openCount(registry) === 0)
  rawOf(stalled).resume()
  t.equal((await stalled.closed).code, 1006)
})

t.test('sockets: the operator decides what the public sees of an agent', async t => {
  const registry = await build(t, {
    publicFields: ['features'],
    publicView: registration => registration.owner === 'hidden'
      ? null
      : { ...registration, public_key: '-'.repeat(32), metadata: { shown: true }, endpoint: 'https://gateway.example' }
  })
  await registry.join('agent-one', { features: ['fast'], ai_context: 'a secret', metadata: { internal: 'a secret' } })
  await registry.join('agent-two', { owner: 'hidden' })
  const watcher = await registry.watcher()
  watcher.send({ type: 'get_discovery' })
  const { data } = await watcher.next('discovery_data')
  t.match(data.agents, [{
    agent_id: 'agent-one',
    features: [
      'fast'
    ],
    public_key: '-'.repeat(32),
    metadata: { shown: true },
    endpoint: 'https://gateway.example',
    ai_context: null,
    metrics: null
  }])
  t.equal(data.agents.length, 1)
  t.notOk(JSON.stringify(watcher.all).includes('a secret'))
})

t.test('times: they carry their zone, and leases do not depend on the time zone', async t => {
  const zone = process.env.TZ
  t.teardown(() => {
    if (zone === undefined) delete process.env.TZ
    else process.env.TZ = zone
  })
  for (const name of ['America/New_York', 'Asia/Kolkata', 'UTC']) {
    process.env.TZ = name
    const registry = await build(t, { lease: { durationMs: 2000, retentionMs: 60_000, cleanupIntervalMs: 50 } })
    const watcher = await registry.watcher()
    await registry.join()
    const { timestamp, data: { agents: [agent] } } = await watcher.next('agents_update')
    for (const time of [agent.last_seen, agent.registered_at, agent.metrics.last_active]) {
      t.match(time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, name)
      t.ok(Math.abs(Date.parse(time) - Date.now()) < 10_000, `${name}: ${time}`)
    }
    t.ok(Math.abs(timestamp - Date.now() / 1000) < 10)
    await sleep(300)
    t.equal(registry.app.agentRegistry.get('agent-one')!.status, 'alive')
    await until(() => registry.app.agentRegistry.get('agent-one')!.status === 'dead')
  }
})
