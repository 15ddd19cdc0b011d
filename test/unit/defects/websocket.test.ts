import type { Socket } from 'node:net'
import { Writable } from 'node:stream'
import t from 'tap'
import { MemoryAgentStore } from '../../../src/index.js'
import { build, sleep, until, type Client, type Harness } from '../../support/harness.js'
import { assertAlive, expired, forge, nextWhere, refusalOf } from '../sockets/helper.js'

const rawOf = ({ ws }: Client) => (ws as unknown as { _socket: Socket })._socket

async function timed (work: () => Promise<unknown>): Promise<number> {
  const started = performance.now()
  await work()
  return performance.now() - started
}

/** The first word of an agents socket, or how it was refused or closed. */
async function firstOf (client: Client) {
  return Promise.race([client.next(), client.closed, client.refused])
}

t.test('unregistering with open sockets takes no five seconds, holds nobody up and is broadcast', async t => {
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

t.test('a sweep that removes many agents with open sockets is broadcast and holds nobody up', async t => {
  const registry = await build(t, { lease: { durationMs: 300, retentionMs: 100, cleanupIntervalMs: 50, preservation: false } })
  const watcher = await registry.agentSocket((await registry.admin()).token)
  for (let i = 0; i < 20; i++) await registry.join(`agent-${i}`)
  await nextWhere(watcher, 'list', list => list.length > 0)
  await nextWhere(watcher, 'list', list => list.length === 0)
  t.ok(await timed(() => registry.join('agent-next')) < 1000)
})

t.test("a forged token with the name of the admin ends nobody's session", async t => {
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

t.test('a stored agent whose type is not allowed any more breaks no tier', async t => {
  const store = new MemoryAgentStore({ leaseMs: 60_000, retentionMs: 60_000 })
  await build(t, { store }).then(async registry => {
    await registry.join('agent-old', { agent_type: 'networking' })
    await registry.app.close()
  })
  const registry = await build(t, { store, allowedAgentTypes: ['testing'] })
  const [watcher, agent] = [await registry.watcher(), await registry.agentSocket(await registry.join())]
  watcher.send({ type: 'get_discovery' })
  t.equal((await watcher.next('discovery_data')).data.pagination.total_agents, 2)
  t.match(agent.all.find(Array.isArray), { length: 2 })
  t.equal((await registry.get('/public/discover')).body.length, 2)
})

t.test('an anonymous client that does not read stalls no registration, and nobody else', async t => {
  const registry = await build(t, { sockets: { agentsUpdateIntervalMs: 1, maxUpdateBytes: 1_000_000 } })
  const [stalled, healthy] = [await registry.watcher(), await registry.watcher()]
  rawOf(stalled).pause()
  let slowest = 0
  for (let i = 0; i < 60; i++) {
    slowest = Math.max(slowest, await timed(() => registry.join(`agent-${i % 8}`, { metadata: { text: ['x'.repeat(100_000)], round: i } })))
    await new Promise(setImmediate)
  }
  t.ok(slowest < 1000, `the slowest of 60 took ${slowest} ms`)
  await nextWhere(healthy, 'agents_update', ({ data }) => data.agents.some(({ metadata }: { metadata: { round: number } }) => metadata.round === 59))
  stalled.terminate()
})

t.test('temporary tokens, tokens without a role, of removed agents, and expired ones by a minute are refused', async t => {
  const registry = await build(t)
  const token = await registry.join()
  const removed = await registry.join('agent-gone')
  await registry.app.agentRegistry.unregister('agent-gone')
  const bad = [await registry.tempToken('agent-two'), forge(token, { role: undefined }), forge(token, { typ: undefined }), removed, expired(token), forge(token, { aud: 'arcp:validate' })]
  for (const text of bad) {
    const client = registry.socket('/agents/ws')
    await client.next('auth_required')
    client.send({ token: text })
    t.equal((await client.next()).type, 'auth_error')
    t.equal((await client.closed).code, 1008)
  }
})

t.test('a token is looked at again while its socket is open', async t => {
  const registry = await build(t, { jwt: { expiresInMs: 1500 } })
  const client = await registry.agentSocket(await registry.join())
  t.equal((await client.closed).code, 4002)
})

t.test('a flood of sockets without a token is bounded and takes no place from anybody', async t => {
  const registry = await build(t, { agentsWs: { maxConnections: 2 }, sockets: { maxUnauthenticated: 5 } })
  const token = await registry.join()
  const flood = Array.from({ length: 20 }, () => registry.socket('/agents/ws'))
  const outcomes = await Promise.all(flood.map(firstOf))
  t.equal(outcomes.filter(({ status }) => status === 503).length, 15)
  t.equal((await firstOf(registry.socket('/agents/ws', [], { headers: { authorization: `Bearer ${token}` } }))).type, 'auth_success')
})

t.test('an address that is blocked opens no socket, and the rate of frames is limited', async t => {
  const registry = await build(t, { addresses: { blocked: ['127.0.0.2'] }, publicWs: { burst: 5, messagesPerSecond: 1 } })
  for (const path of ['/public/ws', '/agents/ws']) {
    t.equal((await registry.socket(path, [], { localAddress: '127.0.0.2' }).refused).status, 403, path)
  }
  const client = await registry.watcher()
  for (let i = 0; i < 10; i++) client.send({ type: 'ping' })
  t.equal((await client.next('error')).code, 'rate_limited')
})

t.test('a token in a URL is not logged, nor what it says', async t => {
  let log = ''
  const stream = new Writable({ write (chunk, _encoding, done) { log += chunk; done() } })
  const registry = await build(t, {}, { server: { logger: { level: 'trace', stream } } })
  const token = await registry.join()
  await firstOf(registry.socket(`/agents/ws?token=${token}`))
  await until(() => log.includes('incoming request'))
  t.notOk(log.includes(token))
  t.notOk(log.includes(JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()).jti))
})

t.test('a page of discovery costs what is on it, not what the registry holds', async t => {
  const registry = await build(t, { publicWs: { burst: 1000 } })
  const ask = async (client: Client) => {
    for (let i = 0; i < 100; i++) client.send({ type: 'get_discovery', page_size: 1 })
    for (let i = 0; i < 100; i++) await client.next('discovery_data')
  }
  const clients = await Promise.all(Array.from({ length: 5 }, () => registry.watcher()))
  for (const client of clients) client.send({ type: 'watch' })
  for (let i = 0; i < 3000; i++) await registry.join(`agent-${i}`)
  const took = await timed(() => Promise.all(clients.map(ask)))
  t.ok(took < 5000, `500 answers in ${took} ms`)
})

t.test('statistics are made once for all sockets', async t => {
  const registry = await build(t, { publicWs: { intervalMs: 400 } })
  await registry.join()
  const clients = await Promise.all(Array.from({ length: 20 }, () => registry.watcher()))
  const stamps = await Promise.all(clients.map(async client => (await client.next('stats_update')).timestamp))
  t.ok(new Set(stamps).size < 10, `${new Set(stamps).size} different frames for 20 sockets`)
})

t.test('no frame is too large for a client that takes one MiB', async t => {
  const registry = await build(t, { sockets: { maxAgentsPerUpdate: 10_000 } })
  for (let i = 0; i < 400; i++) await registry.join(`agent-${i}`, { ai_context: 'x'.repeat(5000) })
  const token = await registry.join()
  const clients = [registry.socket('/public/ws', [], { maxPayload: 1_048_576 }), registry.socket('/agents/ws', [], { maxPayload: 1_048_576, headers: { authorization: `Bearer ${token}` } })]
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

t.test('an agent that sends something is answered at once, and so is the ping after it', async t => {
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

t.test('deaths are told, and many registrations are not as many lists', async t => {
  const registry = await build(t, { lease: { durationMs: 1000, preservation: false }, sockets: { agentsUpdateIntervalMs: 500 } })
  const watcher = await registry.watcher()
  await Promise.all(Array.from({ length: 50 }, (_, i) => registry.join(`agent-${i}`)))
  await nextWhere(watcher, 'agents_update', ({ data }) => data.total_count === 50)
  t.ok(watcher.all.length < 10, `${watcher.all.length} frames for 50 registrations`)
  await nextWhere(watcher, 'agents_update', ({ data }) => data.total_count === 0)
  t.ok(watcher.all.length < 20)
})

t.test('arrays, numbers, null and binary frames are answered and close nothing', async t => {
  const registry = await build(t)
  for (const client of [await registry.watcher(), await registry.agentSocket(await registry.join())]) {
    for (const frame of ['[1]', '5', 'null', '"ping"']) t.equal((await refusalOf(client, frame)).code, 'malformed_message')
    t.equal((await refusalOf(client, Buffer.from([1, 2, 3]))).code, 'unsupported_encoding')
  }
})

t.test('a full tier is refused where a client can see it, and a timeout is told as one', async t => {
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

t.test('a socket that is given up on is closed, not only forgotten', async t => {
  const registry = await build(t, { publicWs: { pingIntervalMs: 200 } })
  const stalled = await registry.watcher()
  rawOf(stalled).pause()
  await until(async () => await openCount(registry) === 0)
  rawOf(stalled).resume()
  t.equal((await stalled.closed).code, 1006)
})

t.test('what the public sees of an agent is for the operator to say', async t => {
  const registry = await build(t, {
    publicFields: ['features'],
    publicView: registration => registration.owner === 'hidden' ? null : { ...registration, public_key: '-'.repeat(32), metadata: { shown: true }, endpoint: 'https://gateway.example' }
  })
  await registry.join('agent-one', { features: ['fast'], ai_context: 'a secret', metadata: { internal: 'a secret' } })
  await registry.join('agent-two', { owner: 'hidden' })
  const watcher = await registry.watcher()
  watcher.send({ type: 'get_discovery' })
  const { data } = await watcher.next('discovery_data')
  t.match(data.agents, [{ agent_id: 'agent-one', features: ['fast'], public_key: '-'.repeat(32), metadata: { shown: true }, endpoint: 'https://gateway.example', ai_context: null, metrics: null }])
  t.equal(data.agents.length, 1)
  t.notOk(JSON.stringify(watcher.all).includes('a secret'))
})

t.test('times say their zone, and agents live as long in every time zone', async t => {
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
