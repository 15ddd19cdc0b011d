import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { RedisStorage, type RedisStorageOptions } from '../../src/storage/redis/storage.js'
import { Peer, registration } from '../support/redis.js'
import { RedisProxy } from '../support/redis-proxy.js'
import { eventually, RedisServer } from '../support/redis-server.js'

const quick = { probeIntervalMs: 300, commandTimeoutMs: 500 }
const unavailable = { type: 'storage-unavailable', statusCode: 503, headers: { 'retry-after': '2' } }

async function start (t: Test, ...args: string[]): Promise<RedisServer> {
  const server = await RedisServer.start(...args)
  t.teardown(() => server.stop())
  return server
}

async function open (t: Test, server: RedisServer, options: Partial<RedisStorageOptions> = {}): Promise<Peer> {
  const peer = await Peer.open(server, { namespace: 'n', ...quick, ...options })
  t.teardown(() => peer.close())
  return peer
}

const faultOf = (call: Promise<unknown>) => call.then(() => 'none', (error: unknown) => error)

/** A process whose connection to Redis can be closed. */
async function through (t: Test, server: RedisServer, options: Partial<RedisStorageOptions> = {}) {
  const proxy = await RedisProxy.start(server)
  t.teardown(() => { proxy.stop() })
  return { proxy, peer: await open(t, server, { connection: { path: proxy.path }, ...options }) }
}

/** Whether a process has lost Redis and reconnected. */
const isBack = ({ faults }: Peer) => faults.at(-1) === null
const back = (...peers: Peer[]) => eventually('every process reconnects to Redis', () => peers.every(isBack))
const away = (...peers: Peer[]) =>
  eventually('every process lost Redis', () => peers.every(({ faults }) => typeof faults.at(-1) === 'string'))

function sweep (t: Test, ...peers: Peer[]) {
  const timer = setInterval(() => { for (const { store } of peers) store.expire({ cleanup: true }).catch(() => {}) }, 100)
  t.teardown(() => { clearInterval(timer) })
}

t.test('redis outage: no agent expires because Redis was stopped, and agents that fall silent afterwards expire', async t => {
  const server = await start(t)
  const [a, b] = [
    await open(t, server, { leaseMs: 3000, preservation: false }), await open(t, server, { leaseMs: 3000, preservation: false })
  ]
  await Promise.all(Array.from({ length: 100 }, (_, index) => (index % 2 ? a : b).store.register(registration(`agent-${index}`))))
  sweep(t, a, b)
  server.freeze()
  await sleep(5000)
  t.same([typeof a.faults.at(-1), typeof b.faults.at(-1)], ['string', 'string'])
  server.thaw()
  await back(a, b)
  await sleep(1500)
  t.same(a.changes.filter(({ event }) => event === 'dead'), [])
  await eventually('they expire on time', () =>
    [a, b].every(({ changes }) => changes.filter(({ event }) => event === 'dead').length === 100))
  t.same([a.faults, b.faults].map(faults => faults.length), [2, 2])
  t.same([a.reloads, b.reloads], [[], []])
  t.equal(a.digest, b.digest)
})

t.test('redis outage: a write that cannot be stored is refused promptly and not stored later', async t => {
  const server = await start(t)
  const a = await open(t, server)
  await a.store.register(registration('before'))
  server.freeze()
  const began = Date.now()
  t.match(await faultOf(a.store.register(registration('during'))), unavailable)
  await away(a)
  t.match(await faultOf(a.store.register(registration('away'))), unavailable)
  t.match(await faultOf(a.store.renew([{ id: 'before' }])), unavailable)
  t.match(await faultOf(a.store.report({ id: 'before', update: { values: {} } })), unavailable)
  t.match(await faultOf(a.storage.kv.get('session', 'x')), unavailable)
  t.ok(Date.now() - began < 5000)
  await sleep(1000)
  server.thaw()
  await back(a)
  await a.store.register(registration('after'))
  await sleep(300)
  t.same([...a.agents.keys()], ['before', 'after'])
  t.same(a.changes.map(({ id }) => id), ['before', 'after'])
})

t.test('redis outage: a closed or half-open connection is detected and replaced', async t => {
  const server = await start(t)
  const [a, b] = [await open(t, server), await open(t, server)]
  await a.store.register(registration('one'))
  for (const kind of ['pubsub', 'normal'] as const) {
    const faults = a.faults.length
    await server.client.call('CLIENT', 'KILL', 'TYPE', kind, 'SKIPME', 'yes')
    await eventually(`${kind} connections are missed`, () => a.faults.length > faults && b.faults.length > faults)
    await back(a, b)
    await a.store.register(registration(`after-${kind}`))
    await eventually('b received it', () => b.n === a.n)
    const seen = await a.store.renew([{ id: `after-${kind}` }])
    await eventually('b received the heartbeat', () =>
      b.agents.get(`after-${kind}`)!.lastSeen === (seen[0] as { record: { lastSeen: number } }).record.lastSeen)
  }
  t.same([a.reloads, b.reloads], [[], []])
  t.equal(a.digest, b.digest)
})

t.test('redis outage: a connection that receives nothing is detected and replaced', async t => {
  const server = await start(t)
  const { proxy, peer: a } = await through(t, server)
  const b = await open(t, server)
  await a.store.register(registration('one'))
  for (const [word, fault] of [['xread', /changes/], ['subscribe', /messages/], ['eval', /timed out/]] as const) {
    const faults = a.faults.length
    t.equal(proxy.hang(word), 1)
    await eventually(`${word} is missed`, () => a.faults.length > faults)
    t.match(a.faults[faults], fault)
    await back(a)
    await b.store.register(registration(`after-${word}`))
    await eventually('a received it', () => a.n === b.n)
  }
  t.same([a.reloads, b.reloads, b.faults], [[], [], []])
})

/** Checks that both processes began the new epoch once and receive each other's changes. */
async function checkResumes (t: Test, a: Peer, b: Peer) {
  await b.store.register(registration('next'))
  await eventually('a received it', () => a.agents.has('next'))
  t.equal(a.digest, b.digest)
  t.same([a.reloads.length, b.reloads.length], [1, 1])
}

t.test('redis outage: after FLUSHALL a new epoch begins, watchers are notified, and agents register again', async t => {
  const server = await start(t)
  const [a, b] = [await open(t, server), await open(t, server)]
  await a.store.register(registration('one'))
  await a.store.register(registration('two'))
  await eventually('b received it', () => b.n === 2)
  const { epoch } = a
  await server.client.flushall()
  await eventually('both are notified', () => a.reloads.length > 0 && b.reloads.length > 0)
  t.same([a.agents.size, b.agents.size], [0, 0])
  t.not(a.epoch, epoch)
  t.same(await a.store.renew([{ id: 'one' }]), [{ ok: false, reason: 'not-found' }])
  await checkResumes(t, a, b)
})

t.test('redis outage: a Redis that lost its last writes begins one new epoch', async t => {
  const server = await start(t)
  const [a, b] = [await open(t, server), await open(t, server)]
  await a.store.register(registration('kept'))
  await server.client.save()
  await Promise.all(['lost-1', 'lost-2', 'lost-3'].map(id => a.store.register(registration(id))))
  await eventually('b received it', () => b.n === 4)
  const { epoch } = a
  await server.kill()
  await away(a, b)
  await server.start()
  await eventually('both are notified', () => a.reloads.length > 0 && b.reloads.length > 0)
  await back(a, b)
  t.same([[...a.agents.keys()], [...b.agents.keys()]], [['kept'], ['kept']])
  t.not(a.epoch, epoch)
  await checkResumes(t, a, b)
})

t.test('redis outage: revisions that were lost and reassigned are distinguished', async t => {
  const server = await start(t)
  const { proxy, peer: a } = await through(t, server)
  await a.store.register(registration('kept'))
  await server.client.save()
  await a.store.register(registration('lost'))
  const { epoch } = a
  proxy.close()
  await away(a)
  await server.kill()
  await server.start()
  const b = await open(t, server)
  for (const id of ['new-1', 'new-2']) await b.store.register(registration(id))
  t.equal(b.revision, `${epoch}:3`)
  proxy.reopen()
  await eventually('both are notified', () => a.reloads.length > 0 && b.reloads.length > 0 && isBack(a))
  t.not(a.epoch, epoch)
  t.equal(a.digest, b.digest)
  t.same([...a.agents.keys()].sort(), ['kept', 'new-1', 'new-2'])
  t.same([a.reloads.length, b.reloads.length], [1, 1])
})

t.test('redis outage: a disconnected process resumes at its position, and its agents get a full lease', async t => {
  const server = await start(t)
  const options = { leaseMs: 4000, preservation: false }
  const { proxy, peer: a } = await through(t, server, options)
  const b = await open(t, server, options)
  await a.store.register(registration('one'))
  await sleep(2500)
  proxy.close()
  await away(a)
  for (let index = 0; index < 20; index++) await b.store.register(registration(`b-${index}`))
  t.match(await faultOf(a.store.extend(10)), unavailable)
  await sleep(1000)
  proxy.reopen()
  await back(a)
  t.equal(a.digest, b.digest)
  t.same([a.reloads, a.faults.length], [[], 2])
  await sleep(1500)
  await b.store.expire({ cleanup: false })
  t.equal(b.agents.get('one')!.state, 'starting')
})

t.test('redis outage: a process away for longer than the stream reaches back reloads everything', async t => {
  const server = await start(t)
  const { proxy, peer: a } = await through(t, server, { changes: 10 })
  const b = await open(t, server, { changes: 10 })
  await a.store.register(registration('one'))
  proxy.close()
  await away(a)
  await Promise.all(Array.from({ length: 600 }, (_, index) => b.store.register(registration(`more-${index % 50}`))))
  proxy.reopen()
  await back(a)
  await eventually('a was notified', () => a.reloads.length === 1)
  t.equal(a.digest, b.digest)
  t.equal(a.reloads[0]!.epoch, b.epoch)
  t.ok(a.reloads[0]!.changes!.length >= 10)
})

t.test('redis outage: heartbeats sent during a disconnect are known afterwards', async t => {
  const server = await start(t)
  const { proxy, peer: a } = await through(t, server)
  const b = await open(t, server)
  await b.store.register(registration('one'))
  await eventually('a received it', () => a.n === 1)
  proxy.close()
  await away(a)
  const outcome = await b.store.report({ id: 'one', update: { request: { responseTime: 1, success: true } } })
  await sleep(400)
  proxy.reopen()
  await back(a)
  t.match(outcome, { record: a.agents.get('one') })
  t.match(a.agents.get('one'), { state: 'alive', metrics: { total_requests: 1 } })
})

t.test('redis outage: key-value entries are reloaded when messages may have been missed', async t => {
  const server = await start(t)
  const [a, b] = [await open(t, server), await open(t, server)]
  const reloads: unknown[] = []
  const received: unknown[] = []
  await a.storage.kv.open({ changed () {}, reloaded () {} })
  await b.storage.kv.open({ changed: entry => { received.push(entry) }, reloaded: entries => { reloads.push(entries) } })
  const entry = { kind: 'session', key: 's', value: 'v', until: Date.now() + 60_000 } as const
  await server.client.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  await b.storage.kv.put(entry)
  t.match(received, [entry])
  await eventually('it is reloaded', () => reloads.length > 0)
  t.match(reloads.at(-1), [entry])
})

t.test('redis outage: without Redis nothing opens, and the message names the address', async t => {
  const storage = new RedisStorage(
    { connection: { path: '/nowhere/redis.sock' }, namespace: 'n', leaseMs: 1000, retentionMs: 1000, onError: () => {} }
  )
  await t.rejects(storage.agents.open(new Peer({ path: '' } as RedisServer, { namespace: 'n' })), {
    message: /^Redis cannot be reached: connect ENOENT \/nowhere\/redis.sock\. Start it/
  })
  await storage.agents.close()
  await storage.kv.close()
})

t.test('redis outage: a store that failed to open opens when Redis is back', async t => {
  const server = await start(t)
  await server.kill()
  const peer = new Peer(server, { namespace: 'n' })
  await t.rejects(peer.store.open(peer), { message: /^Redis cannot be reached/ })
  await server.start()
  await peer.store.open(peer)
  t.match(await peer.store.register(registration('one')), { ok: true })
  await peer.close()
})

t.test('redis outage: all leases are extended by the time without a running process', async t => {
  const server = await start(t)
  const options = { leaseMs: 2000, preservation: false, ...quick, namespace: 'n' }
  const a = await Peer.open(server, options)
  await a.store.register(registration('one'))
  await a.close()
  await sleep(3000)
  const b = await open(t, server, options)
  t.equal(await b.store.expire({ cleanup: true }), 0)
  sweep(t, b)
  await eventually('it expires on time', () => b.agents.get('one')!.state === 'dead')
})

t.test('redis outage: data of a newer version is not opened', async t => {
  const server = await start(t)
  await server.client.hset('{ar:n}:meta', 'schema', '2', 'epoch', 'x')
  await t.rejects(Peer.open(server, { namespace: 'n' }), { message: /newer version \(schema 2\)/ })
  t.same(await server.client.hgetall('{ar:n}:meta'), { schema: '2', epoch: 'x' })
})

t.test('redis outage: unknown members of a record are preserved', async t => {
  const server = await start(t)
  const a = await open(t, server)
  await a.store.register(registration('one'))
  const head = JSON.parse((await server.client.hget('{ar:n}:heads', 'one'))!) as object
  await server.client.hset('{ar:n}:heads', 'one', JSON.stringify({ ...head, zone: 'eu' }))
  await a.store.renew([{ id: 'one' }])
  await a.store.setState({ id: 'one', state: 'draining', reason: 'asked' })
  await a.store.register(registration('one'))
  t.match(JSON.parse((await server.client.hget('{ar:n}:heads', 'one'))!), { zone: 'eu', state: 'starting', revision: 4 })
})

t.test('redis outage: the client of the host is not used, changed or closed', async t => {
  const server = await start(t)
  const client = new Redis({ path: server.path, keyPrefix: 'host:', commandTimeout: 77 })
  t.teardown(() => { client.disconnect() })
  await client.ping()
  const before = { ...client.options }
  const peer = await Peer.open(server, { namespace: 'n', connection: { client } })
  await peer.store.register(registration('one'))
  await peer.close()
  t.same({ ...client.options }, before)
  t.equal(await client.ping(), 'PONG')
  t.same((await client.keys('*')).filter(key => !key.startsWith('{ar:n}:')), [])
})
