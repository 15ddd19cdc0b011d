import t, { type Test } from 'tap'
import { build, sleep, until, type Client, type Harness, type Remote } from '../../support/harness.js'
import { dashboard } from './dashboard-helper.js'
import { assertAlive, openers, rawOf } from './helper.js'
import { Tunnel } from './tunnel.js'

const pingIntervalMs = 400
type Admin = Awaited<ReturnType<Harness['admin']>>
const everyTier = (more: object) => ({ publicWs: more, agentsWs: { intervalMs: 50, ...more }, dashboardWs: { intervalMs: 60_000, ...more } })

async function countOf (registry: Harness, admin: Admin): Promise<number> {
  const { body } = await registry.get('/agents/stats', admin)
  return body.performance.active_websocket_connections
}

/** One socket of each tier, through this network. */
async function openAll (network: Remote, registry: Harness, { token }: Admin, id = 'agent-one'): Promise<Client[]> {
  return [await network.watcher(), await network.agentSocket(await registry.join(id)), await dashboard(network, token)]
}

async function start (t: Test) {
  const registry = await build(t, { ...everyTier({ pingIntervalMs }), lease: { durationMs: 60_000 } })
  return { registry, admin: await registry.admin(), tunnel: await Tunnel.open(t, registry) }
}

t.test('sockets whose network swallows everything are gone after two intervals, and nobody else is', async t => {
  const { registry, admin, tunnel } = await start(t)
  const healthy = await openAll(registry, registry, admin, 'agent-healthy')
  const lost = await openAll(tunnel, registry, admin, 'agent-lost')
  await sleep(3 * pingIntervalMs)
  t.equal(await countOf(registry, admin), 6, 'silent ones that answer pings stay')
  tunnel.swallow()
  await until(async () => await countOf(registry, admin) === 3, 5 * 2 * pingIntervalMs)
  await until(() => registry.app.agentRegistry.get('agent-lost')!.state === 'suspect')
  // Its first sign of life goes to the store with others.
  t.match(registry.app.agentRegistry.get('agent-healthy')!.state, /^(starting|alive)$/)
  for (const client of healthy) await assertAlive(client)
  for (const client of lost) t.equal(client.ws.readyState, client.ws.OPEN, 'it has not heard of it')
})

t.test('a socket that reads and answers no ping is gone after two intervals, one that says anything stays', async t => {
  const { registry } = await start(t)
  const [silent, talker] = [registry.socket('/public/ws', [], { autoPong: false }), registry.socket('/public/ws', [], { autoPong: false })]
  await silent.next('welcome')
  await talker.next('welcome')
  const talk = setInterval(() => talker.send('pong'), pingIntervalMs / 2)
  t.teardown(() => clearInterval(talk))
  t.equal((await silent.closed).code, 1006)
  t.ok(silent.all.includes('ping'), 'it was asked in words too')
  await assertAlive(talker)
})

t.test('protocol pings of a client are signs of life, and too many are read later', async t => {
  const registry = await build(t, everyTier({ pingIntervalMs, messagesPerSecond: 50, burst: 50 }))
  const [pinger, flood, neighbour] = [registry.socket('/public/ws', [], { autoPong: false }), await registry.watcher(), await registry.watcher()]
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

t.test('while this process stood still nobody has gone', async t => {
  const { registry, admin } = await start(t)
  const clients = await openAll(registry, registry, admin)
  const early = registry.socket('/agents/ws')
  await early.next('auth_required')
  // A machine that was suspended: the timers are due before anything is read.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5 * pingIntervalMs)
  await sleep(pingIntervalMs)
  for (const client of clients) await assertAlive(client)
  t.equal(early.ws.readyState, early.ws.OPEN)
})

t.test('who says nothing but pings and pongs is closed with 4028 where a time is set', async t => {
  const registry = await build(t, { publicWs: { pingIntervalMs: 100, idleTimeoutMs: 500 }, agentsWs: { pingIntervalMs: 100 } })
  const [idle, busy, other] = [await registry.watcher(), await registry.watcher(), await openers.agents(registry)]
  const timers = [
    setInterval(() => { if (idle.ws.readyState === idle.ws.OPEN) for (const frame of ['ping', 'pong', { type: 'ping' }, { type: 'pong' }]) idle.send(frame) }, 50),
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

t.test('a peer that does not answer a close is cut off, however much it goes on sending', async t => {
  const registry = await build(t, { publicWs: { timeoutMs: 300, idleTimeoutMs: 200 } })
  const client = await registry.watcher()
  rawOf(client).removeAllListeners('data').resume()
  const talk = setInterval(() => { client.ws.ping() }, 20)
  t.teardown(() => clearInterval(talk))
  const started = Date.now()
  t.equal((await client.closed).code, 1006)
  t.ok(Date.now() - started < 4000, 'long before ws would')
})
