import t from 'tap'
import { Cluster } from 'ioredis'
import { freePort } from '../support/harness.js'
import { eventually, type RedisServer } from '../support/redis-server.js'
import { away, back, join, persist, start, through, type Process } from '../support/broker-redis.js'
import { numbers } from '../../src/storage/contract/broker-scene.js'

t.setTimeout(180_000)

const log = 'c:workflows/one'
const place = 'c:workflows/one'
const presenceTtlMs = 1500

const keysOf = async (server: RedisServer) =>
  (await server.client.keys('*')).filter(key => /:(place|members|processes|presence)/.test(key)).sort()

/** Number of joins and leaves of each peer. */
function tally (moves: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const move of moves) counts[move] = (counts[move] ?? 0) + 1
  return counts
}

const once = (moves: readonly string[]) => Object.fromEntries(moves.map(move => [move, 1]))

t.test('redis broker: all peers of a process that was killed leave once', async t => {
  const server = await start(t)
  const [dead, proxy] = await through(t, server)
  const [a, b] = [await join(t, server), await join(t, server)]
  const peers = numbers(1200)
  await Promise.all(peers.slice(0, 10).map(peer => a.broker.enter(place, peer, 'a')))
  await Promise.all(peers.map(peer => dead.broker.enter(place, peer, 'dead')))
  const others = [a, b]
  for (const { broker } of others) await broker.watch(place)
  await dead.broker.watch(place)
  proxy.close()
  const begun = Date.now()
  for (const process of others) await process.receivesChanges(place, peers.length)
  const took = Date.now() - begun
  t.ok(took < 5 * presenceTtlMs, `it took ${took} ms`)
  const left = [...peers.slice(0, 10).map(peer => `(-${peer})`), ...peers.slice(10).map(peer => `-${peer}`)]
  for (const process of others) {
    t.same(tally(process.changesOf(place)), once(left))
    process.changes.length = 0
  }
  t.same(await a.membersOf(place), peers.slice(0, 10).map(peer => `${peer} a`))

  proxy.reopen()
  for (const process of others) await process.receivesChanges(place, peers.length)
  for (const process of others) t.same(tally(process.changesOf(place)), once(left.map(move => move.replace('-', '+'))))
  await eventually('the gap is reported again', () => dead.reloads.at(-1)?.members.length === peers.length + 10)

  for (const { broker } of [dead, a, b]) await broker.close()
  t.same(await keysOf(server), ['{ar:n}:presence'])
})

t.test('redis broker: a process that resumes while it is marked dead has all its peers present again', async t => {
  const server = await start(t)
  const [slow, proxy] = await through(t, server)
  await Promise.all(numbers(100).map(peer => slow.broker.enter(place, peer, 'slow')))
  const a = await join(t, server)
  await a.broker.watch(place)
  proxy.close()
  await away(slow)
  await eventually('its time has passed', async () =>
    Number(await server.client.zscore('{ar:n}:processes', slow.broker.process)) < Date.now())
  proxy.reopen()
  await back(slow)
  await slow.broker.enter(place, 'new', 'slow')
  await eventually('all are present', async () => (await a.membersOf(place)).length === 101)
})

t.test('redis broker: a process learns that it was marked dead when a peer joins through it', async t => {
  const server = await start(t)
  // It does not detect its disconnect before a peer joins through it.
  const slow = await join(t, server, { messaging: { presenceTtlMs: 600_000 }, probeIntervalMs: 60_000, commandTimeoutMs: 30_000 })
  await Promise.all(numbers(100).map(peer => slow.broker.enter(place, peer, 'slow')))
  const a = await join(t, server)
  await a.broker.watch(place)
  await server.client.zadd('{ar:n}:processes', 1, slow.broker.process)
  await a.receivesChanges(place, 100)
  t.same(await a.membersOf(place), [])
  await slow.broker.enter(place, 'new', 'slow')
  await a.receivesChanges(place, 201)
  t.same(a.reloads, [])
  t.same(tally(a.changesOf(place)), once([...numbers(100).flatMap(peer => [`-${peer}`, `+${peer}`]), '+new']))
})

/** Checks that both processes report the state after Redis lost data. */
async function checkNewEpoch (t: Tap, a: Process, b: Process, epoch: string) {
  const first = await persist(() => b.say(log, 'anew'))
  t.not(first.epoch, epoch)
  t.equal(first.offset, 1)
  for (const process of [a, b]) {
    t.same((await process.receives(log, 3)).slice(2), ['anew'])
    t.same(process.gaps.filter(loss => loss.log === log)
      .map(({ epoch, offset, after }) => ({ epoch, offset, after })), [{ epoch: first.epoch, offset: 0, after: 2 }])
  }
  t.match(
    await a.broker.read(log, { since: { epoch, offset: 2 }, limit: 10 }), { epoch: first.epoch, recovered: false, entries: [{ offset: 1 }] }
  )
  await eventually('all peers are present again', async () => (await a.membersOf(place)).join() === 'p a,q b')
  const newest = Math.max(...[a, b].flatMap(({ changes }) => changes.map(({ revision }) => revision)))
  await a.broker.enter(place, 'r', '{}')
  await b.waitUntil(() => b.changesOf(place).includes('+r'))
  t.ok(b.changes.at(-1)!.revision > newest)
  t.match(b.changes.at(-1), { peerId: 'r', op: 'enter' })
}

type Tap = Parameters<typeof start>[0]

/** Two processes that follow a log with two entries and watch a set in which each has a peer. */
async function settle (t: Tap, server: RedisServer) {
  const [a, b] = [await join(t, server), await join(t, server)]
  for (const { broker } of [a, b]) await Promise.all([broker.follow(log), broker.followPattern('workflows/**'), broker.watch(place)])
  await a.broker.enter(place, 'p', 'a')
  await b.broker.enter(place, 'q', 'b')
  await a.sayAll(log, ['1', '2'])
  for (const process of [a, b]) {
    await process.receives(log, 2)
    await process.receivesChanges(place, 2)
  }
  return { a, b, epoch: a.received[0]!.epoch }
}

t.test('redis broker: after Redis restarts empty, logs begin a new epoch and all peers are present again', async t => {
  const server = await start(t)
  const { a, b, epoch } = await settle(t, server)
  await server.kill()
  await away(a, b)
  await server.start()
  await back(a, b)
  await checkNewEpoch(t, a, b, epoch)
  t.ok(a.reloads.length > 0 && b.reloads.length > 0)
})

t.test('redis broker: after FLUSHALL logs begin a new epoch and all peers are present again', async t => {
  const server = await start(t)
  const { a, b, epoch } = await settle(t, server)
  await server.client.flushall()
  await eventually('both were notified', () => a.reloads.length > 0 && b.reloads.length > 0)
  await checkNewEpoch(t, a, b, epoch)
})

t.test('redis broker: a Redis that lost its newest entries begins a new epoch without repeated deliveries', async t => {
  const server = await start(t)
  const { a, b, epoch } = await settle(t, server)
  await server.client.save()
  await b.sayAll(log, ['lost 3', 'lost 4'])
  for (const process of [a, b]) await process.receives(log, 4)
  await server.kill()
  await away(a, b)
  await server.start()
  await back(a, b)
  await eventually('both are notified', () => a.gaps.length > 0 && b.gaps.length > 0)
  const next = await persist(() => b.say(log, '3'))
  t.not(next.epoch, epoch)
  t.equal(next.offset, 3)
  for (const process of [a, b]) {
    t.same(await process.receives(log, 5), ['1', '2', 'lost 3', 'lost 4', '3'])
    t.match(process.gaps, [{ log, epoch: next.epoch, offset: 2, after: 4 }])
    t.equal(process.gaps.length, 1)
  }
})

t.test('redis broker: another namespace in the same Redis is isolated', async t => {
  const server = await start(t)
  const [a, b] = [await join(t, server, { namespace: 'n' }), await join(t, server, { namespace: 'n[*]' })]
  for (const { broker } of [a, b]) await Promise.all([broker.follow(log), broker.followPattern('**'), broker.watch(place)])
  await a.say(log, 'a', { msgId: 'm' })
  await a.broker.enter(place, 'p', '{}')
  a.broker.sendToProcess(b.broker.process, 'x')
  t.match(await b.say(log, 'b', { msgId: 'm' }), { offset: 1, duplicate: false })
  await b.say('c:end', 'b')
  await a.receives(log, 1)
  await b.receives('c:end', 1)
  t.same([a.textsOf(log), b.textsOf(log), b.changes, b.processMessages, await b.membersOf(place)], [['a'], ['b'], [], [], []])
})

t.test('redis broker: more patterns than Redis is asked to match are still followed', async t => {
  const server = await start(t)
  const [a, b] = [await join(t, server), await join(t, server)]
  const wanted = numbers(200).map(n => `p${n}/*`)
  await Promise.all(wanted.map(pattern => a.broker.followPattern(pattern)))
  t.equal(Number(await server.client.pubsub('NUMPAT')), 65)
  for (const pattern of wanted.slice(0, 150)) a.broker.unfollowPattern(pattern)
  await Promise.all(wanted.map(pattern => b.say(`c:${pattern.replace('*', 'x')}`, pattern)))
  await b.say('c:p199/end', 'x')
  await a.receives('c:p199/end', 1)
  t.same(a.received.slice(0, -1).map(({ data }) => JSON.parse(data)), wanted.slice(150))
  for (const pattern of wanted.slice(150)) a.broker.unfollowPattern(pattern)
  await eventually('there is no Redis subscription', async () => Number(await server.client.pubsub('NUMPAT')) === 0)
})

t.test('redis broker: unused logs leave no Redis subscription, and a closed broker leaves none', async t => {
  const server = await start(t)
  const a = await join(t, server)
  const before = (await server.client.pubsub('CHANNELS', '*') as string[]).length
  await Promise.all([...numbers(1200).map(n => a.broker.follow(`c:${n}`)), a.broker.watch(place)])
  t.equal((await server.client.pubsub('CHANNELS', '*') as string[]).length, before + 1201)
  for (const n of numbers(1200)) a.broker.unfollow(`c:${n}`)
  a.broker.unwatch(place)
  await eventually('they have left', async () => (await server.client.pubsub('CHANNELS', '*') as string[]).length === before)
  await a.broker.follow(log)
  await a.broker.close()
  await eventually('all have left', async () => (await server.client.pubsub('CHANNELS', '*') as string[]).length === before - 1)
})

t.test('redis broker: a broker closes while Redis is unreachable, and opens only when it is reachable', async t => {
  const server = await start(t)
  const [a, b] = [await join(t, server), await join(t, server)]
  await a.broker.enter(place, 'p', '{}')
  await server.kill()
  const entering = b.broker.enter(place, 'p', '{}').catch((error: { type: string }) => error.type)
  await Promise.all([a.broker.close(), b.broker.close()])
  t.equal(await entering, 'storage-unavailable')
  await t.rejects(b.broker.open(b), { message: /Redis/ })
  await server.start()
})

t.test('redis broker: peers exchange messages over a Redis Cluster', async t => {
  const free = await freePort()
  const port = free > 55_000 ? free - 20_000 : free
  const server = await start(
    t, '--port', String(port), '--bind', '127.0.0.1', '--cluster-enabled', 'yes', '--cluster-announce-ip', '127.0.0.1'
  )
  await server.client.call('CLUSTER', 'ADDSLOTSRANGE', 0, 16383)
  await eventually('the cluster is up', async () => String(await server.client.call('CLUSTER', 'INFO')).includes('cluster_state:ok'))
  const client = new Cluster([{ host: '127.0.0.1', port }], { lazyConnect: true })
  t.teardown(() => { client.disconnect() })
  const [a, b] = [
    await join(t, server, { connection: { cluster: [{ host: '127.0.0.1', port }] } }), await join(t, server, { connection: { client } })
  ]
  await Promise.all([a.broker.follow(log), a.broker.watch(place), b.broker.followPattern('workflows/*')])
  await b.sayAll(log, numbers(100))
  await b.broker.enter(place, 'p', '{}')
  b.broker.sendToProcess(a.broker.process, 'x')
  t.same([await a.receives(log, 100), await b.receives(log, 100)], [numbers(100), numbers(100)])
  t.same(await a.receivesChanges(place, 1), ['+p'])
  await a.waitUntil(() => a.processMessages.length === 1)
})
