import t, { type Test } from 'tap'
import { MemoryAgentStore, type Principal, type RegistryEvent } from '../../../src/index.js'
import { build, type Client, type Harness, keys, registration, type Remote, sleep, until } from '../../support/harness.js'
import { assertAlive, nextWhere, openers, rawOf, sendTogether } from './helper.js'
import { dashboard } from './dashboard-helper.js'
import { Tunnel } from './tunnel.js'

const leaseMs = 300

/** A registry with short leases, and its events. */
async function start (t: Test, options: Parameters<typeof build>[1] = {}) {
  const registry = await build(t, { lease: { durationMs: leaseMs }, ...options })
  const events: RegistryEvent[] = []
  registry.app.agentRegistry.events.on('change', event => { events.push(event) })
  const reasons = () => events.map(({ reason }) => reason)
  return { registry, events, reasons }
}

const stateOf = (registry: Harness, id = 'agent-one') => registry.app.agentRegistry.get(id)?.state

/** An agents socket that does not answer protocol pings. */
async function withoutPongs (registry: Harness, token: string, more: object = {}): Promise<Client> {
  const client = registry.socket('/agents/ws', [], { autoPong: false })
  await client.next('auth_required')
  client.send({ token, ...more })
  await client.next('list')
  return client
}

t.test('agent liveness: pongs of a silent socket renew the lease, which expires one lease after they end', async t => {
  const { registry, reasons } = await start(t)
  const client = await registry.agentSocket(await registry.join())
  await sleep(5 * leaseMs)
  t.strictSame(reasons(), ['created', 'first-sign'])
  t.equal(stateOf(registry), 'alive')
  client.close(1000)
  await until(() => stateOf(registry) === 'dead')
  t.strictSame(reasons(), ['created', 'first-sign', 'lease-expired'])
})

t.test('agent liveness: frames of a socket that answers no pings renew the lease', async t => {
  const { registry, reasons } = await start(t)
  const client = await withoutPongs(registry, await registry.join())
  const sendGroup = setInterval(() => client.send('pong'), leaseMs / 6)
  await sleep(4 * leaseMs)
  t.strictSame(reasons(), ['created', 'first-sign'])
  clearInterval(sendGroup)
  await until(() => stateOf(registry) === 'dead')
  t.equal(client.ws.readyState, client.ws.OPEN, 'an open socket alone does not renew the lease')
  client.send('pong')
  await until(() => stateOf(registry) === 'alive')
  t.equal(reasons().at(-1), 'revived')
})

t.test('agent liveness: a broken socket makes its agent suspect at once and dead after the lease', async t => {
  const { registry, events } = await start(t, { lease: { durationMs: 1500 } })
  const client = await registry.agentSocket(await registry.join())
  await until(() => stateOf(registry) === 'alive')
  client.terminate()
  await until(() => stateOf(registry) === 'suspect')
  t.match(registry.app.agentRegistry.get('agent-one'), { status: 'alive', state: 'suspect' })
  const { total_agents: total, alive_agents: alive } = registry.app.agentRegistry.stats()
  t.strictSame([total, alive], [1, 1])
  await until(() => stateOf(registry) === 'dead')
  t.strictSame(events.map(({ reason, previous }) => [previous, reason]), [
    [null, 'created'], ['starting', 'first-sign'], ['alive', 'connection-lost'], ['suspect', 'lease-expired']
  ])
})

t.test('agent liveness: a suspect agent is alive with its next socket, and a plain key may register it', async t => {
  const { registry, reasons } = await start(t, { lease: { durationMs: 30_000 } })
  const { body: { access_token: token } } = await registry.register('agent-one')
  const first = await registry.agentSocket(token)
  t.equal((await registry.register('agent-one')).status, 409, 'not while it is connected')
  first.terminate()
  await until(() => stateOf(registry) === 'suspect')
  const second = await registry.agentSocket(token)
  await until(() => stateOf(registry) === 'alive')
  t.equal(reasons().at(-1), 'resumed')
  second.terminate()
  await until(() => stateOf(registry) === 'suspect')
  t.equal((await registry.post(
    '/agents/register', { token: await registry.tempToken('agent-one', keys.other), body: registration() }
  )).status, 409, 'another key')
  t.equal((await registry.register('agent-one')).status, 200)
})

t.test('agent liveness: one broken socket of two has no effect, unless the other only observes', async t => {
  const { registry, reasons } = await start(t, { lease: { durationMs: 30_000 } })
  const token = await registry.join()
  const [one, two] = [await registry.agentSocket(token), await registry.agentSocket(token)]
  const observer = await registry.agentSocket(token, { observe: true })
  one.terminate()
  await one.closed
  await assertAlive(two)
  t.notOk(reasons().includes('connection-lost'))
  two.terminate()
  await until(() => stateOf(registry) === 'suspect')
  observer.terminate()
  await observer.closed
})

t.test('agent liveness: a close frame with any code is not a break', async t => {
  const { registry, reasons } = await start(t, { lease: { durationMs: 30_000 } })
  const token = await registry.join()
  for (const code of [1000, 1001, 3000, undefined]) {
    const client = await registry.agentSocket(token)
    client.close(code)
    await client.closed
  }
  await registry.app.agentRegistry.setStatus('agent-one', 'draining')
  const draining = await registry.agentSocket(token)
  draining.terminate()
  const observer = await registry.agentSocket(token, { observe: true })
  observer.terminate()
  await until(async () => (await registry.get('/agents/stats', await registry.admin())).body.performance.active_websocket_connections === 0)
  t.equal(stateOf(registry), 'draining', 'a requested status persists')
  t.notOk(reasons().includes('connection-lost'))
})

t.test('agent liveness: an observing socket does not renew the lease', async t => {
  const { registry, reasons } = await start(t)
  const client = await registry.agentSocket(await registry.join(), { observe: true })
  const sendGroup = setInterval(() => client.send({ type: 'ping' }), leaseMs / 6)
  t.teardown(() => clearInterval(sendGroup))
  await until(() => stateOf(registry) === 'dead')
  t.strictSame(reasons(), ['created', 'lease-expired'])
  await assertAlive(client)
})

t.test('agent liveness: the socket of an older instance is closed with 4009 and renews nothing', async t => {
  const { registry, reasons } = await start(t)
  const old = await registry.agentSocket(await registry.join())
  await until(() => stateOf(registry) === 'alive')
  old.send({ type: 'ping' })
  await registry.join()
  const { last_seen: since, incarnation } = registry.app.agentRegistry.get('agent-one')!
  t.strictSame(await old.closed, { code: 4009, reason: 'Replaced by a newer instance' })
  await until(() => stateOf(registry) === 'dead')
  t.match(registry.app.agentRegistry.get('agent-one'), { last_seen: since, incarnation })
  t.strictSame(reasons(), ['created', 'first-sign', 'replaced', 'lease-expired'])
})

t.test('agent liveness: an expired token closes the socket without making its agent suspect', async t => {
  const { registry, reasons } = await start(t, { lease: { durationMs: 30_000 }, jwt: { expiresInMs: 1500 } })
  const client = await registry.agentSocket(await registry.join())
  t.equal((await client.closed).code, 4002)
  t.notOk(reasons().includes('connection-lost'))
})

t.test('agent liveness: an agent authenticated by the host lives by its socket across a registration', async t => {
  const principal: Principal = {
    type: 'agent',
    role: 'agent',
    subject: 'agent-one',
    agentId: 'agent-one',
    incarnation: null,
    tokenId: 'h',
    sessionId: null,
    expiresAt: null,
    scopes: [],
    keyDigest: null
  }
  const { registry, reasons } = await start(t, { authenticate: () => principal })
  await registry.join()
  const client = await registry.agentSocket('of-the-host')
  await sleep(4 * leaseMs)
  await registry.join()
  await sleep(4 * leaseMs)
  t.strictSame(reasons(), ['created', 'first-sign', 'replaced', 'first-sign'])
  await assertAlive(client)
  client.terminate()
  await until(() => reasons().includes('connection-lost'))
})

t.test('agent liveness: a registry that shuts down marks no agent suspect', async t => {
  const { registry, reasons } = await start(t, { lease: { durationMs: 30_000 } })
  const client = await registry.agentSocket(await registry.join())
  client.ws.on('message', data => { if (String(data).includes('going_away')) client.terminate() })
  await registry.app.close()
  t.notOk(reasons().includes('connection-lost'))
})

async function connectionsOf (registry: Harness): Promise<number> {
  const { body } = await registry.get('/agents/stats', await registry.admin())
  return body.performance.active_websocket_connections
}

t.test('rate limit: frames over the rate are refused with a retry time and not handled', async t => {
  const registry = await build(t, { publicWs: { messagesPerSecond: 2, burst: 5 } })
  const [flood, neighbour] = [await registry.watcher(), await registry.watcher()]
  const frames = Array.from({ length: 12 }, (_, i) => ({ type: 'unwatch', requestId: `r${i}` }))
  sendTogether(flood, frames)
  sendTogether(flood, [{ type: 'ping', pad: 'x'.repeat(5000) }])
  flood.send(Buffer.from('binary'))
  await until(() => flood.all.length === 1 + frames.length + 2)
  const [acked, refused] = [flood.all.filter(({ type }) => type === 'ack'), flood.all.filter(({ type }) => type === 'error')]
  t.strictSame([...acked, ...refused].map(({ requestId }) => requestId).filter(Boolean).sort(), frames.map(({ requestId }) => requestId)
    .sort(), 'each answered once')
  t.ok(acked.length >= 5 && acked.length < 10, `${acked.length} handled`)
  t.ok(refused.every(({ code, retryAfterMs }) => code === 'rate_limited' && retryAfterMs > 0 && retryAfterMs <= 500))
  await assertAlive(neighbour)
  await sleep(refused.at(-1).retryAfterMs + 20)
  await assertAlive(flood)
})

t.test('rate limit: a client over the rate for ten seconds is closed, and one that pauses is not', async t => {
  const registry = await build(t, { publicWs: { messagesPerSecond: 20, burst: 5 } })
  const [flood, bursts] = [await registry.watcher(), await registry.watcher()]
  const started = Date.now()
  const timers = [
    setInterval(() => { if (flood.ws.readyState === flood.ws.OPEN) flood.send({ type: 'ping' }) }, 10),
    setInterval(() => { for (let i = 0; i < 10; i++) bursts.send({ type: 'ping' }) }, 2000)
  ]
  const end = await flood.closed
  t.strictSame(end, { code: 4029, reason: 'Too many messages' })
  t.ok(Date.now() - started >= 10_000)
  await sleep(1000)
  for (const timer of timers) clearInterval(timer)
  t.ok(bursts.all.some(({ code }) => code === 'rate_limited'))
  t.equal(bursts.ws.readyState, bursts.ws.OPEN)
})

t.test('backpressure: more frames than can queue behind a slow one close the connection', async t => {
  const registry = await build(t, { agentsWs: { burst: 5000 }, authenticate: () => new Promise(() => {}) })
  const client = registry.socket('/agents/ws')
  await client.next('auth_required')
  sendTogether(client, [{ token: 'x' }, ...Array.from({ length: 1100 }, () => ({}))])
  t.strictSame(await client.closed, { code: 4029, reason: 'Too many messages' })
})

/** A store with slow state changes. */
class SlowStore extends MemoryAgentStore {
  waiting = 0
  override async setState (command: Parameters<MemoryAgentStore['setState']>[0]) {
    this.waiting++
    await sleep(200)
    return super.setState(command)
  }
}

t.test('order: answers have the order of their frames, also around a slow one', async t => {
  const store = new SlowStore({ leaseMs: 60_000, retentionMs: 60_000 })
  const registry = await build(t, { storage: { agents: store } })
  const client = await registry.agentSocket(await registry.join())
  sendTogether(client, [
    { type: 'ping', requestId: '1' }, { type: 'status', status: 'draining', requestId: '2' }, { type: 'nope', requestId: '3' },
    { type: 'status', status: 'alive', requestId: '4' }, { type: 'ping', requestId: '5' }
  ])
  await nextWhere(client, 'pong', ({ requestId }) => requestId === '5')
  t.strictSame(client.all.map(({ requestId }) => requestId).filter(Boolean), ['1', '2', '3', '4', '5'])
  const gone = await registry.agentSocket(await registry.join('agent-two'))
  const before = store.waiting
  gone.send({ type: 'status', status: 'draining', requestId: 'r' })
  await until(() => store.waiting > before)
  gone.terminate()
  await until(() => registry.app.agentRegistry.get('agent-two')!.state === 'draining')
  await assertAlive(client)
})

t.test('heartbeat: a peer without a response is terminated after two intervals', async t => {
  const registry = await build(t, { publicWs: { pingIntervalMs: 250 } })
  const [dead, healthy] = [await registry.watcher(), await registry.watcher()]
  t.equal(await connectionsOf(registry), 2)
  rawOf(dead).pause()
  await until(async () => await connectionsOf(registry) === 1)
  rawOf(dead).resume()
  t.equal((await dead.closed).code, 1006)
  await assertAlive(healthy)
})

t.test('slow reader: a socket with too many unread answers is closed with 4008, and no other waits', async t => {
  const registry = await build(t, { sockets: { maxBufferedBytes: 1_000_000 } })
  for (let i = 0; i < 8; i++) await registry.join(`agent-${i}`, { metadata: { text: ['x'.repeat(100_000)] } })
  const [slow, neighbour] = [await registry.watcher(), await registry.watcher()]
  rawOf(slow).pause()
  for (let i = 0; i < 100; i++) slow.send({ type: 'get_discovery' })
  await assertAlive(neighbour)
  neighbour.send({ type: 'get_discovery' })
  t.equal((await neighbour.next('discovery_data')).data.agents.length, 8)
  await sleep(500)
  rawOf(slow).resume()
  t.strictSame(await slow.closed, { code: 4008, reason: 'Slow consumer' })
  const got = slow.all.filter(({ type }) => type === 'discovery_data').length
  t.ok(got > 0 && got < 100, `${got} of 100 answers`)
})

t.test('slow reader: on resuming it gets the newest list and a feed resync', async t => {
  const registry = await build(t, { agentsWs: { intervalMs: 1 }, feed: { ringSize: 20 } })
  const { token } = await registry.admin()
  const [lists, feed, neighbour] = [await registry.agentSocket(token), await registry.agentSocket(token), await registry.watcher()]
  feed.send({ type: 'watch' })
  await feed.next('ack')
  for (const client of [lists, feed]) rawOf(client).pause()
  const rounds = 250
  for (let i = 0; i <= rounds; i++) {
    await registry.join('agent-one', { name: `Round ${i}`, metadata: { text: ['x'.repeat(100_000)] } })
    await new Promise(setImmediate)
  }
  await nextWhere(neighbour, 'agents_update', ({ data }) => data.agents[0].name === `Round ${rounds}`)
  for (const client of [lists, feed]) rawOf(client).resume()
  await nextWhere(lists, 'list', ([agent]) => agent.name === `Round ${rounds}`)
  await feed.next('resync')
  t.equal((await feed.next('agents_snapshot')).agents[0].name, `Round ${rounds}`)
  const seen = feed.all.filter(({ type }) => type === 'agents_delta').length
  t.ok(seen < rounds, `${seen} deltas of ${rounds}`)
  await registry.app.agentRegistry.unregister('agent-one')
  t.equal((await feed.next('agents_delta')).changes[0].op, 'remove')
  t.strictSame(await lists.next('list'), [])
})

t.test('shutdown: closes are announced and staggered, and a dead peer does not delay them', async t => {
  const registry = await build(t, { sockets: { drainMs: 1000 } })
  const clients = [
    await registry.watcher(), await registry.agentSocket(await registry.join()), registry.socket('/agents/ws'), await registry.watcher()
  ]
  await clients[2]!.next('auth_required')
  const dead = await registry.watcher()
  rawOf(dead).pause()
  const started = Date.now()
  const closing = registry.app.close()
  await clients[0]!.next('going_away')
  const ready = await fetch(`${registry.base}/health/ready`)
  t.equal(ready.status, 503, 'readiness fails first')
  for (const path of ['/public/ws', '/nowhere']) {
    const { status, headers } = await registry.socket(path).refused
    t.strictSame([status, headers['retry-after']], [503, '5'])
  }
  for (const client of clients) {
    t.strictSame(await client.closed, { code: 1001, reason: 'Going away' })
    const { retryAfterMs } = client.all.find(({ type }) => type === 'going_away')
    t.ok(retryAfterMs >= 0 && retryAfterMs <= 1000)
  }
  await closing
  t.ok(Date.now() - started < 5000, 'not delayed')
  rawOf(dead).resume()
  await dead.closed
})

t.test('shutdown: an upgrade with a pending decision is refused', async t => {
  let asked = false
  const registry = await build(t, {
    authenticate: async () => {
      asked = true
      await sleep(300)
      return null
    }
  })
  const late = registry.socket('/agents/ws?token=whose')
  await until(() => asked)
  const closing = registry.app.close()
  const { status, text } = await late.refused
  t.match([status, JSON.parse(text)], [503, { type: '/problems/shutting-down' }])
  await closing
})

t.test('upgrades: one on a path without a socket gets a clear response', async t => {
  const registry = await build(t)
  const { status, text } = await registry.socket('/public/info?token=secret').refused
  t.match([status, JSON.parse(text)], [400, { type: '/problems/request-error', instance: '/public/info' }])
  t.equal((await registry.socket('/nowhere').refused).status, 404)
  t.equal((await registry.post('/agents/register', { body: registration() })).status, 401)
})

const pingIntervalMs = 400
type Admin = Awaited<ReturnType<Harness['admin']>>
const everyTier = (more: object) =>
  ({ publicWs: more, agentsWs: { intervalMs: 50, ...more }, dashboardWs: { intervalMs: 60_000, ...more } })

async function countOf (registry: Harness, admin: Admin): Promise<number> {
  const { body } = await registry.get('/agents/stats', admin)
  return body.performance.active_websocket_connections
}

/** One socket per tier, through this network. */
async function openAll (network: Remote, registry: Harness, { token }: Admin, id = 'agent-one'): Promise<Client[]> {
  return [await network.watcher(), await network.agentSocket(await registry.join(id)), await dashboard(network, token)]
}

async function startHalfOpen (t: Test) {
  const registry = await build(t, { ...everyTier({ pingIntervalMs }), lease: { durationMs: 60_000 } })
  return { registry, admin: await registry.admin(), tunnel: await Tunnel.open(t, registry) }
}

t.test('heartbeat: sockets on a dead network are closed after two intervals, and no others', async t => {
  const { registry, admin, tunnel } = await startHalfOpen(t)
  const healthy = await openAll(registry, registry, admin, 'agent-healthy')
  const lost = await openAll(tunnel, registry, admin, 'agent-lost')
  await sleep(3 * pingIntervalMs)
  t.equal(await countOf(registry, admin), 6, 'silent sockets that answer pings stay')
  tunnel.swallow()
  await until(async () => await countOf(registry, admin) === 3, 5 * 2 * pingIntervalMs)
  await until(() => registry.app.agentRegistry.get('agent-lost')!.state === 'suspect')
  // Its first heartbeat goes to the store in a batch.
  t.match(registry.app.agentRegistry.get('agent-healthy')!.state, /^(starting|alive)$/)
  for (const client of healthy) await assertAlive(client)
  for (const client of lost) t.equal(client.ws.readyState, client.ws.OPEN, 'it has not received the close')
})

t.test('heartbeat: a socket that answers no ping is closed after two intervals, and any frame keeps it open', async t => {
  const { registry } = await startHalfOpen(t)
  const [silent, talker] = [registry.socket('/public/ws', [], { autoPong: false }), registry.socket('/public/ws', [], { autoPong: false })]
  await silent.next('welcome')
  await talker.next('welcome')
  const sendGroup = setInterval(() => talker.send('pong'), pingIntervalMs / 2)
  t.teardown(() => clearInterval(sendGroup))
  t.equal((await silent.closed).code, 1006)
  t.ok(silent.all.includes('ping'), 'it got a text ping too')
  await assertAlive(talker)
})

t.test('heartbeat: protocol pings of a client count, and excess ones are read later', async t => {
  const registry = await build(t, everyTier({ pingIntervalMs, messagesPerSecond: 50, burst: 50 }))
  const [pinger, flood, neighbour] = [
    registry.socket('/public/ws', [], { autoPong: false }), await registry.watcher(), await registry.watcher()
  ]
  await pinger.next('welcome')
  const pings = setInterval(() => pinger.ws.ping(), pingIntervalMs / 2)
  t.teardown(() => clearInterval(pings))
  let pongs = 0
  flood.ws.on('pong', () => { pongs++ })
  const started = Date.now()
  for (let sent = 0; sent < 1000; sent += 50) {
    for (let i = 0; i < 50; i++) flood.ws.ping()
    await until(() => pongs === sent + 50, 20_000)
  }
  t.ok(Date.now() - started >= 500, `a thousand pings took ${Date.now() - started} ms`)
  await sleep(2 * pingIntervalMs)
  await assertAlive(neighbour)
  await assertAlive(pinger)
})

t.test('heartbeat: a stopped process closes no socket when it resumes', async t => {
  const { registry, admin } = await startHalfOpen(t)
  const clients = await openAll(registry, registry, admin)
  const early = registry.socket('/agents/ws')
  await early.next('auth_required')
  // Like a suspended machine: the timers are due before any input is read.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5 * pingIntervalMs)
  await sleep(pingIntervalMs)
  for (const client of clients) await assertAlive(client)
  t.equal(early.ws.readyState, early.ws.OPEN)
})

t.test('idle timeout: a client that sends only pings and pongs is closed with 4028 if configured', async t => {
  const registry = await build(t, { publicWs: { pingIntervalMs: 100, idleTimeoutMs: 500 }, agentsWs: { pingIntervalMs: 100 } })
  const [idle, busy, other] = [await registry.watcher(), await registry.watcher(), await openers.agents(registry)]
  const timers = [
    setInterval(() => {
      if (idle.ws.readyState === idle.ws.OPEN) for (const frame of ['ping', 'pong', { type: 'ping' }, { type: 'pong' }]) idle.send(frame)
    }, 50),
    setInterval(() => busy.send({ type: 'unwatch' }), 50)
  ]
  t.teardown(() => { for (const timer of timers) clearInterval(timer) })
  const started = Date.now()
  t.strictSame(await idle.closed, { code: 4028, reason: 'Idle' })
  t.ok(Date.now() - started >= 300, 'not before')
  await sleep(600)
  await assertAlive(busy)
  await assertAlive(other)
})

t.test('close: a peer that does not answer the close frame is terminated, also while it sends', async t => {
  const registry = await build(t, { publicWs: { timeoutMs: 300, idleTimeoutMs: 200 } })
  const client = await registry.watcher()
  rawOf(client).removeAllListeners('data').resume()
  const sendGroup = setInterval(() => { client.ws.ping() }, 20)
  t.teardown(() => clearInterval(sendGroup))
  const started = Date.now()
  t.equal((await client.closed).code, 1006)
  t.ok(Date.now() - started < 4000, 'long before ws would')
})
