import t from 'tap'
import { MemoryAgentStore } from '../../../src/index.js'
import { build, registration, sleep, until, type Harness } from '../../support/harness.js'
import { assertAlive, nextWhere, rawOf, sendTogether } from './helper.js'

async function connectionsOf (registry: Harness): Promise<number> {
  const { body } = await registry.get('/agents/stats', await registry.admin())
  return body.performance.active_websocket_connections
}

t.test('what is over the rate is refused with the time to wait, and not acted on', async t => {
  const registry = await build(t, { publicWs: { messagesPerSecond: 2, burst: 5 } })
  const [flood, neighbour] = [await registry.watcher(), await registry.watcher()]
  const frames = Array.from({ length: 12 }, (_, i) => ({ type: 'unwatch', requestId: `r${i}` }))
  sendTogether(flood, frames)
  sendTogether(flood, [{ type: 'ping', pad: 'x'.repeat(5000) }])
  flood.send(Buffer.from('binary'))
  await until(() => flood.all.length === 1 + frames.length + 2)
  const [acked, refused] = [flood.all.filter(({ type }) => type === 'ack'), flood.all.filter(({ type }) => type === 'error')]
  t.strictSame([...acked, ...refused].map(({ requestId }) => requestId).filter(Boolean).sort(), frames.map(({ requestId }) => requestId).sort(), 'each answered once')
  t.ok(acked.length >= 5 && acked.length < 10, `${acked.length} acted on`)
  t.ok(refused.every(({ code, retryAfterMs }) => code === 'rate_limited' && retryAfterMs > 0 && retryAfterMs <= 500))
  await assertAlive(neighbour)
  await sleep(refused.at(-1).retryAfterMs + 20)
  await assertAlive(flood)
})

t.test('who stays over the rate for ten seconds is closed, who pauses is not', async t => {
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

t.test('more frames than may wait for one that takes its time end the connection', async t => {
  const registry = await build(t, { agentsWs: { burst: 5000 }, authenticate: () => new Promise(() => {}) })
  const client = registry.socket('/agents/ws')
  await client.next('auth_required')
  sendTogether(client, [{ token: 'x' }, ...Array.from({ length: 1100 }, () => ({}))])
  t.strictSame(await client.closed, { code: 4029, reason: 'Too many messages' })
})

/** A store that takes its time over states. */
class SlowStore extends MemoryAgentStore {
  waiting = 0
  override async setState (command: Parameters<MemoryAgentStore['setState']>[0]) {
    this.waiting++
    await sleep(200)
    return super.setState(command)
  }
}

t.test('answers come in the order of their frames, also around one that takes its time', async t => {
  const store = new SlowStore({ leaseMs: 60_000, retentionMs: 60_000 })
  const registry = await build(t, { store })
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

t.test('a peer that is not there any more is cut off after two intervals', async t => {
  const registry = await build(t, { publicWs: { pingIntervalMs: 250 } })
  const [dead, healthy] = [await registry.watcher(), await registry.watcher()]
  t.equal(await connectionsOf(registry), 2)
  rawOf(dead).pause()
  await until(async () => await connectionsOf(registry) === 1)
  rawOf(dead).resume()
  t.equal((await dead.closed).code, 1006)
  await assertAlive(healthy)
})

t.test('a reader that lets answers pile up is closed with 4008, and nobody else waits', async t => {
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

t.test('a reader that stops gets the newest list when it goes on, and the feed anew', async t => {
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

t.test('a server that closes says so, staggers its closes and is not held up by a dead peer', async t => {
  const registry = await build(t, { sockets: { drainMs: 1000 } })
  const clients = [await registry.watcher(), await registry.agentSocket(await registry.join()), registry.socket('/agents/ws'), await registry.watcher()]
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
  t.ok(Date.now() - started < 5000, 'not held up')
  rawOf(dead).resume()
  await dead.closed
})

t.test('an upgrade that is being decided when the server closes is refused', async t => {
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

t.test('an upgrade where no socket is gets a clear answer', async t => {
  const registry = await build(t)
  const { status, text } = await registry.socket('/public/info?token=secret').refused
  t.match([status, JSON.parse(text)], [400, { type: '/problems/request-error', instance: '/public/info' }])
  t.equal((await registry.socket('/nowhere').refused).status, 404)
  t.equal((await registry.post('/agents/register', { body: registration() })).status, 401)
})
