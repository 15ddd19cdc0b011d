import { Writable } from 'node:stream'
import fastifyWebsocket from '@fastify/websocket'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { MemoryAgentStore } from '../../../src/index.js'
import { KeyValueReplica } from '../../../src/storage/kv-store.js'
import { problem } from '../../../src/errors.js'
import { FleetConnections } from '../../../src/limits/connection-slots.js'
import type { TierName } from '../../../src/protocol/frames/catalogues.js'
import { MemoryKeyValueStore } from '../../../src/storage/memory/kv-store.js'
import { build, type Client, sleep, until } from '../../support/harness.js'
import { dashboard } from './dashboard-helper.js'
import { rawOf, sendTogether } from './helper.js'

/** By default @fastify/websocket closes the sockets of a host at once. */
const keepsSockets = { preClose: (done: () => void) => { done() } }
const goingAway = { code: 1001, reason: 'Going away' }
const slotOf = ({ all }: Client): number => all.find(({ type }) => type === 'going_away').retryAfterMs

/** A store with slow, counted state changes. */
class SlowStore extends MemoryAgentStore {
  waitMs = 50
  done = 0
  override async setState (command: Parameters<MemoryAgentStore['setState']>[0]) {
    await sleep(this.waitMs)
    const result = await super.setState(command)
    this.done++
    return result
  }
}

const slowStore = () => new SlowStore({ leaseMs: 60_000, retentionMs: 60_000 })
const statusFrames = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ type: 'status', status: i % 2 ? 'alive' : 'draining', requestId: `s${i}` }))
const acked = ({ all }: Client): string[] => all.filter(({ type }) => type === 'ack').map(({ requestId }) => requestId)

t.test('drain: readiness fails first, and each client gets its own slot and is closed at it', async t => {
  const registry = await build(t, { sockets: { drainMs: 1000 } })
  const { token } = await registry.admin()
  const clients = [await registry.agentSocket(await registry.join()), await dashboard(registry, token), registry.socket('/agents/ws')]
  await clients[2]!.next('auth_required')
  for (let i = 0; i < 37; i++) clients.push(await registry.watcher())
  const started = performance.now()
  const late: number[] = []
  for (const client of clients) client.ws.once('close', () => { late.push(performance.now() - started - slotOf(client)) })
  const closing = registry.app.close()
  await clients[39]!.next('going_away')
  t.equal((await fetch(`${registry.base}/health/ready`)).status, 503)
  for (const client of clients) t.strictSame(await client.closed, goingAway)
  await closing
  const slots = clients.map(slotOf)
  t.equal(new Set(slots).size, clients.length, 'all different')
  t.ok(Math.max(...slots) < 400, 'few clients take less than the whole time')
  t.ok(Math.min(...late) >= -1, 'no client is closed before its announced time')
})

t.test('drain: frames sent before the announcement are handled and answered before the close', async t => {
  const store = slowStore()
  const registry = await build(t, { storage: { agents: store }, sockets: { drainMs: 4000 } })
  const client = await registry.agentSocket(await registry.join())
  const frames = statusFrames(20)
  const received = new Promise<void>(resolve => {
    client.ws.on('message', data => { if (String(data).includes('going_away')) resolve() })
  })
  const closing = registry.app.close()
  // The frames are in flight when it is notified, and its slot is within ten milliseconds.
  sendTogether(client, frames)
  await received
  t.strictSame(await client.closed, goingAway)
  t.strictSame(acked(client), frames.map(({ requestId }) => requestId))
  await closing
  t.equal(store.done, frames.length)
})

t.test('drain: frames after the announced time are not handled, and do not delay the close', async t => {
  const store = slowStore()
  const registry = await build(t, { storage: { agents: store }, sockets: { drainMs: 2000 } })
  const client = await registry.agentSocket(await registry.join())
  let sent = 0
  const sendGroup = setInterval(
    () => { if (client.ws.readyState === client.ws.OPEN) client.send({ type: 'status', status: 'alive', requestId: `r${sent++}` }) }, 5
  )
  t.teardown(() => clearInterval(sendGroup))
  await until(() => acked(client).length > 2)
  const started = Date.now()
  await registry.app.close()
  t.strictSame(await client.closed, goingAway)
  t.ok(Date.now() - started < 4 * 2000)
  t.ok(store.done >= acked(client).length &&
    acked(client).length < sent, `${store.done} done, ${acked(client).length} acknowledged, ${sent} sent`)
})

t.test('drain: an answer that never comes does not delay the close', async t => {
  const store = slowStore()
  const registry = await build(t, { storage: { agents: store }, sockets: { drainMs: 400 } })
  const client = await registry.agentSocket(await registry.join())
  store.waitMs = 3000
  client.send({ type: 'status', status: 'draining', requestId: 'never' })
  await sleep(100)
  const started = Date.now()
  await registry.app.close()
  t.ok(Date.now() - started < 2500)
  t.strictSame(await client.closed, goingAway)
  t.strictSame(acked(client), [])
})

t.test('drain: dead peers and peers that answer no pings end at the deadline at the latest', async t => {
  const registry = await build(t, { sockets: { drainMs: 600 } })
  const [dead, mute] = [await registry.watcher(), registry.socket('/public/ws', [], { autoPong: false })]
  await mute.next('welcome')
  rawOf(dead).pause()
  const started = Date.now()
  await registry.app.close()
  const took = Date.now() - started
  t.ok(took >= 500 && took < 3000, `closed after ${took} ms`)
  t.strictSame(await mute.closed, goingAway)
  rawOf(dead).resume()
  await dead.closed
})

/** A registry whose host delays each upgrade by the time in its query. */
async function startSlowHost (t: Test, prepare: (app: FastifyInstance) => unknown = () => {}) {
  let waiting = 0
  const registry = await build(t, { sockets: { drainMs: 2000 } }, {
    before: async app => {
      await prepare(app)
      app.addHook('preHandler', async function lookItUp (request) {
        const { wait } = request.query as { wait?: string }
        if (wait === undefined) return
        waiting++
        await sleep(Number(wait))
      })
    }
  })
  return { registry, isWaiting: () => waiting > 0 }
}

t.test('drain: an upgrade accepted during the drain that completes after it is refused without a delay', async t => {
  const { registry, isWaiting } = await startSlowHost(t)
  const late = registry.socket('/public/ws?wait=500')
  await until(isWaiting)
  const started = Date.now()
  await registry.app.close()
  t.ok(Date.now() - started < 5000)
  t.equal((await late.refused).status, 503)
})

t.test('drain: a socket that the host accepts during the drain is drained too', async t => {
  const { registry, isWaiting } = await startSlowHost(t, app => app.register(fastifyWebsocket, keepsSockets))
  const mute = registry.socket('/public/ws', [], { autoPong: false })
  await mute.next('welcome')
  const late = registry.socket('/public/ws?wait=300')
  await until(isWaiting)
  await registry.app.close()
  t.strictSame(await late.closed, goingAway)
  t.strictSame(late.all, [{ type: 'going_away', retryAfterMs: 0 }])
  t.strictSame(await mute.closed, goingAway)
})

t.test('drain: a duration that Fastify would cut short is warned about at the start', async t => {
  for (const [pluginTimeout, warnings] of [[5000, 1], [60_000, 0], [0, 0]] as const) {
    let log = ''
    const stream = new Writable({ write (chunk, _encoding, done) { log += chunk; done() } })
    await build(t, { sockets: { drainMs: 3000 } }, { server: { pluginTimeout, logger: { level: 'warn', stream } } })
    t.equal(log.split('sockets.drainMs').length - 1, warnings)
  }
})

t.test('drain: sockets of the host are left open', async t => {
  const registry = await build(t, { sockets: { drainMs: 2000 } }, {
    before: async app => {
      await app.register(fastifyWebsocket, keepsSockets)
      app.get('/host/ws', { websocket: true }, function echo (socket) {
        socket.on('message', data => socket.send(`host: ${data}`))
      })
    }
  })
  const own = registry.socket('/host/ws')
  await own.opened
  const ours = await Promise.all(Array.from({ length: 20 }, () => registry.watcher()))
  const closing = registry.app.close()
  await ours[0]!.closed
  own.send('still there')
  t.equal(await own.next(), 'host: still there')
  for (const client of ours) t.strictSame(await client.closed, goingAway)
  own.close()
  await closing
  t.strictSame(own.all, ['host: still there'])
})

interface Process { sockets: FleetConnections, counts: Record<TierName, number>, errors: unknown[], state: MemoryKeyValueStore }

/** The socket counts of a process in its own store; the test passes its entries on. */
async function open (t: Test, now = Date.now): Promise<Process> {
  const state = new MemoryKeyValueStore({ clock: now })
  const shared = new KeyValueReplica(state)
  await shared.open()
  const counts = { public: 0, agents: 0, dashboard: 0, v1: 0 }
  const errors: unknown[] = []
  const sockets = new FleetConnections({ kvReplica: shared, now, countOf: tier => counts[tier], onError: error => { errors.push(error) } })
  sockets.start()
  t.teardown(() => { sockets.stop() })
  return { sockets, counts, errors, state }
}

t.test('fleet slots: sockets of other processes count while those processes report', async t => {
  let now = Date.now()
  const { sockets, counts, state } = await open(t, () => now)
  counts.public = 2
  await state.put({ kind: 'sockets', key: 'other', value: '{"public":3,"agents":1,"dashboard":0}', until: now + 1000 })
  await state.put({ kind: 'sockets', key: 'third', value: '{"public":4,"agents":0,"dashboard":0}', until: now + 60_000 })
  t.same([sockets.countOf('public'), sockets.countOf('agents')], [9, 1])
  now += 1000
  t.equal(sockets.countOf('public'), 6, 'a process without a recent report does not count')
  await until(() => [...sockets.keys()].length === 1)
  await state.take('sockets', 'third')
  t.equal(sockets.countOf('public'), 2)
})

t.test('fleet slots: a process reports its changed counts, and ignores its own reports', async t => {
  const { sockets, counts, state } = await open(t)
  counts.agents = 5
  await until(async () => (await state.list('sockets')).some(({ value }) => JSON.parse(value!).agents === 5))
  counts.agents = 6
  await until(async () => (await state.list('sockets')).some(({ value }) => JSON.parse(value!).agents === 6))
  t.equal((await state.list('sockets')).length, 1)
  t.equal(sockets.countOf('agents'), 6)
})

t.test('fleet slots: a store outage is reported elsewhere, other faults are logged here, and the report is retried', async t => {
  const { counts, errors, state } = await open(t)
  const faults = [problem('storage-unavailable', 'away'), new Error('broken')]
  const put = state.put.bind(state)
  state.put = async (...args) => {
    const fault = faults.shift()
    if (fault) throw fault
    return put(...args)
  }
  counts.public = 1
  await until(async () => (await state.list('sockets')).length === 1)
  t.match(errors, [{ message: 'broken' }])
  t.equal(errors.length, 1)
})

t.test('fleet slots: without other processes the fleet limit is that of one process', async t => {
  const registry = await build(t, { publicWs: { maxFleetConnections: 1 } })
  const first = registry.socket('/public/ws')
  await first.next('welcome')
  t.match(await registry.socket('/public/ws').refused, { status: 503 })
  first.close()
  await until(async () => {
    const client = registry.socket('/public/ws')
    return await Promise.race([client.next('welcome').then(() => true), client.refused.then(() => false)])
  })
})
