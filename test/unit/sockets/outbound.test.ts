import type { AddressInfo } from 'node:net'
import { Writable } from 'node:stream'
import fastifyWebsocket, { type WebsocketPluginOptions } from '@fastify/websocket'
import { decode } from '@msgpack/msgpack'
import fastify, { type FastifyInstance } from 'fastify'
import { WebSocket } from 'ws'
import t, { type Test } from 'tap'
import { RawTransport, WebSocketTransport } from '../../../src/sockets/transport/ws.js'
import { EncodedMessage, type Encoding, protocolPing, textPing } from '../../../src/protocol/encoded-message.js'
import agentRegistry, { type AgentRegistryOptions } from '../../../src/index.js'
import { build, type Client, Harness, type Json, sleep, until, withDefaults } from '../../support/harness.js'
import { View } from '../../support/watched-view.js'
import { type Message, type Pair, rawOf, receives, socketPairs, tlsClient, tlsServer } from './pairs.js'
import { testBehaviours, fastSettings } from './behaviours.js'
import { dashboard } from './dashboard-helper.js'
import { assertAlive, nextWhere } from './helper.js'
import { Tunnel } from './tunnel.js'

const encodings: Encoding[] = ['json', 'msgpack']
/** Texts from two bytes to more than a 16-bit length. */
const texts = [2, 100, 125, 126, 1_000, 65_535, 65_536, 100_000].map(size =>
  JSON.stringify('x'.repeat(Math.max(0, size - 4))).replace(/^.*$/, '[$&]'))
const large = (n: number) => new EncodedMessage(JSON.stringify({ n, pad: 'p'.repeat(1_000_000) }))
const small = (n: number) => new EncodedMessage(`{"n":${n}}`)

const numberIn = (message: Message): number => (typeof message === 'string' ? JSON.parse(message) : decode(message)).n
const numbersOf = ({ received }: Pair) => received.map(numberIn)
const count = (length: number) => Array.from({ length }, (_, n) => n)
/** The end of this tick, when all pending messages are written. */
const tick = () => new Promise(resolve => setImmediate(() => setImmediate(resolve)))

for (const tls of [false, true]) {
  for (const encoding of encodings) {
    t.test(`flush: all messages of a tick leave in one write, in order, as ${encoding}${tls ? ' over TLS' : ''}`, async t => {
      const { open, traffic } = await socketPairs(t, { tls })
      const pair = await open({ encoding })
      const messages = [protocolPing, textPing, ...texts.map(text => new EncodedMessage(text))]
      for (const message of messages) pair.outbound.push(message)
      t.equal(pair.writes.length, 0, 'not before the end of the tick')
      const received = await receives(pair, messages.length - 1)
      t.strictSame(received.map(data => typeof data === 'string' ? data : JSON.stringify(decode(data))), ['ping', ...texts])
      t.equal(received.filter(data => typeof data !== 'string').length, encoding === 'json' ? 0 : texts.length)
      t.equal(pair.pings, 1)
      t.equal(pair.writes.filter(({ length }) => length > 0).length, 1)
      const bytes = messages.reduce((sum, message) => sum + message.size(encoding), 0)
      t.match(traffic, { framesOut: messages.length, bytesOut: bytes, writes: 1, slowCloses: 0 })
    })
  }
}

t.test('flush: a single message leaves at the end of its tick, and ticks are written in order', async t => {
  const { open, traffic } = await socketPairs(t)
  const pair = await open()
  for (const n of count(5)) {
    pair.outbound.push(small(n))
    await tick()
    t.equal(pair.writes.length, n + 1)
  }
  t.strictSame((await receives(pair, 5)).map(numberIn), count(5))
  t.match(traffic, { framesOut: 5, writes: 5 })
})

t.test('flush: with the ws transport each message is one write, in the same order', async t => {
  for (const encoding of encodings) {
    const { open, traffic } = await socketPairs(t, { Transport: WebSocketTransport })
    const pair = await open({ encoding })
    for (const n of count(50)) pair.outbound.push(n % 10 === 9 ? protocolPing : small(n))
    await receives(pair, 45)
    t.strictSame(numbersOf(pair), count(50).filter(n => n % 10 !== 9))
    t.equal(pair.pings, 5)
    t.match(traffic, { framesOut: 50, writes: 50 })
  }
})

t.test('flush: sockets with the same messages share buffers, and others do not', async t => {
  const { open } = await socketPairs(t)
  const pairs = await Promise.all([open(), open(), open(), open({ encoding: 'msgpack' }), open({ encoding: 'msgpack' })])
  const [one, two, other, packed, alsoPacked] = pairs as [Pair, Pair, Pair, Pair, Pair]
  const [first, second] = [small(1), small(2)]
  for (const message of [first, second]) for (const { outbound } of pairs) outbound.push(message)
  other.outbound.push(small(3))
  await Promise.all(pairs.map(pair => receives(pair, pair === other ? 3 : 2)))
  for (const pair of pairs) t.strictSame(numbersOf(pair), pair === other ? [1, 2, 3] : [1, 2])
  t.equal(one.writes[0], two.writes[0])
  t.not(one.writes[0], other.writes[0])
  t.equal(packed.writes[0], alsoPacked.writes[0])
})

t.test('flush: a part of an oversized buffer leaves before the end of the tick', async t => {
  const { open } = await socketPairs(t)
  const pair = await open({ limit: 67_108_864 })
  for (const n of count(4)) pair.outbound.push(large(n))
  t.ok(pair.writes.length >= 1)
  await receives(pair, 4)
  t.strictSame(numbersOf(pair), count(4))
  t.equal(pair.overflows, 0)
})

for (const Transport of [RawTransport, WebSocketTransport]) {
  t.test(`close: it follows the messages sent before it, and nothing follows it (${Transport.name})`, async t => {
    const { open } = await socketPairs(t, { Transport })
    for (const encoding of encodings) {
      const pair = await open({ encoding })
      for (const n of count(20)) pair.outbound.push(small(n))
      pair.outbound.close(4001, 'Token revoked', false)
      pair.outbound.push(small(99))
      t.strictSame(await pair.closed, { code: 4001, reason: 'Token revoked' })
      t.strictSame(numbersOf(pair), count(20))
    }
  })

  t.test(`slow reader: it delays only itself, and continues where it stopped (${Transport.name})`, async t => {
    const { open } = await socketPairs(t, { Transport })
    const [slow, other] = [await open({ limit: 67_108_864 }), await open()]
    rawOf(slow.client).pause()
    for (const n of count(20)) {
      slow.outbound.push(large(n))
      other.outbound.push(small(n))
      await tick()
    }
    t.ok(slow.outbound.isBlocked)
    t.ok(slow.outbound.depth > 1_000_000)
    await receives(other, 20)
    rawOf(slow.client).resume()
    await receives(slow, 20)
    t.strictSame(numbersOf(slow), count(20))
    await until(() => !slow.outbound.isBlocked)
    t.equal(slow.outbound.depth, 0)
    t.equal(slow.overflows, 0)
  })

  t.test(`slow reader: waiting items are sent after it has read, the newest of each kind once (${Transport.name})`, async t => {
    const { open, traffic } = await socketPairs(t, { Transport })
    const pair = await open({ limit: 67_108_864 })
    rawOf(pair.client).pause()
    for (const n of count(15)) pair.outbound.push(large(n))
    await tick()
    const called: string[] = []
    for (const n of count(3)) pair.outbound.whenSent('stats', () => { called.push(`stats ${n}`) })
    pair.outbound.whenSent('list', () => { called.push('list') })
    await sleep(50)
    t.strictSame(called, [])
    t.equal(traffic.superseded, 2)
    rawOf(pair.client).resume()
    await until(() => called.length > 0)
    t.strictSame(called, ['stats 2', 'list'])
    await receives(pair, 15)
  })

  t.test(`slow reader: one over the limit is reported once, and is closed without the rest (${Transport.name})`, async t => {
    const { open, traffic } = await socketPairs(t, { Transport })
    const pair = await open({ limit: 2_000_000 })
    rawOf(pair.client).pause()
    for (let n = 0; n < 50 && pair.overflows === 0; n++) {
      pair.outbound.push(large(n))
      await tick()
    }
    t.equal(pair.overflows, 1)
    const said = traffic.framesOut
    pair.outbound.push(small(99))
    pair.outbound.close(4008, 'Slow consumer', true)
    rawOf(pair.client).resume()
    t.strictSame(await pair.closed, { code: 4008, reason: 'Slow consumer' })
    t.strictSame(numbersOf(pair), count(said), 'earlier writes are complete')
  })

  t.test(`flush: sockets that end during it do not affect others (${Transport.name})`, async t => {
    const { open, errors } = await socketPairs(t, { Transport })
    const pairs = await Promise.all(count(6).map(() => open()))
    const [closer, closed, terminated, gone, destroyed, last] = pairs as [Pair, Pair, Pair, Pair, Pair, Pair]
    gone.client.terminate()
    for (const { outbound } of pairs) outbound.push(small(1))
    closer.outbound.whenSent('then', () => { closed.outbound.close(1000, 'Closed by another', false) })
    terminated.server.terminate()
    rawOf(destroyed.server).destroy()
    for (const { outbound } of pairs) outbound.push(small(2))
    for (const pair of [closer, closed, last]) t.strictSame((await receives(pair, 2)).map(numberIn), [1, 2])
    t.match(await closed.closed, { code: 1000, reason: 'Closed by another' })
    for (const pair of [terminated, gone, destroyed]) t.equal((await pair.closed).code, 1006)
    for (const { outbound } of pairs) outbound.push(small(3))
    for (const pair of [closer, last]) t.strictSame((await receives(pair, 3)).map(numberIn), [1, 2, 3])
    t.strictSame(errors, [])
  })
}

t.test('flush: a socket with a write error is ended without delaying the others', async t => {
  const { open, errors } = await socketPairs(t)
  const [first, broken, last] = await Promise.all([open(), open(), open()]) as [Pair, Pair, Pair]
  rawOf(broken.server).write = () => { throw new Error('not this socket') }
  for (const { outbound } of [first, broken, last]) outbound.push(small(1))
  for (const pair of [first, last]) t.strictSame((await receives(pair, 1)).map(numberIn), [1])
  t.equal((await broken.closed).code, 1006)
  t.match(errors, [{ message: 'not this socket' }])
  broken.outbound.push(small(2))
  broken.outbound.close(1000, 'Bye', false)
  await tick()
  t.equal(errors.length, 1, 'no write is retried')
})

t.test('close: one that cannot be queued after the rest ends the socket too', async t => {
  const { open, errors } = await socketPairs(t)
  const pair = await open()
  rawOf(pair.server).write = () => { throw new Error('not this socket') }
  pair.outbound.push(small(1))
  pair.outbound.close(1000, 'Bye', false)
  t.equal((await pair.closed).code, 1006)
  t.equal(errors.length, 1)
})

t.test('flush: a waiting item that throws is reported, and the next one is called', async t => {
  const { open, errors } = await socketPairs(t)
  const pair = await open({ limit: 67_108_864 })
  const called: string[] = []
  for (const isSlow of [false, true]) {
    if (isSlow) rawOf(pair.client).pause()
    for (const n of count(15)) pair.outbound.push(large(n))
    pair.outbound.whenSent('one', () => { throw new Error('not now') })
    pair.outbound.whenSent('two', () => { called.push('two') })
    await tick()
    rawOf(pair.client).resume()
    await until(() => called.length === (isSlow ? 2 : 1))
  }
  t.match(errors, [{ message: 'not now' }, { message: 'not now' }])
})

const warning = 'frames are sent one by one'

/** A listening registry, and its warnings. */
async function start (t: Test, {
  before, server = {}, options = fastSettings
}: { before?: (app: FastifyInstance) => unknown, server?: object, options?: AgentRegistryOptions } = {}) {
  const warnings: string[] = []
  const stream = new Writable({ write (chunk, _encoding, done) { warnings.push(String(chunk)); done() } })
  const app = fastify({ ...server, logger: { level: 'warn', stream } }) as unknown as FastifyInstance
  await before?.(app)
  await app.register(agentRegistry, withDefaults(options))
  await app.listen({ port: 0, host: '127.0.0.1' })
  t.teardown(() => app.close())
  return { registry: new Harness(app), warnings }
}

/** A WebSocket of a host that sends different bytes with the same meaning: a blank after the JSON. */
class Padded extends WebSocket {
  override send (data: unknown, ...rest: unknown[]): void {
    const isFrame = typeof data === 'string' && data.length > 'pong'.length
    Reflect.apply(super.send, this, [isFrame ? `${data} ` : data, ...rest])
  }
}

const padding = { options: { WebSocket: Padded } } as WebsocketPluginOptions

t.test('transport: the frame writer below ws', async t => {
  const { registry, warnings } = await start(t)
  await testBehaviours(t, { registry })
  t.notOk(warnings.some(text => text.includes(warning)))
})

t.test('transport: the frame writer over TLS', async t => {
  const { registry, warnings } = await start(t, { server: { https: tlsServer } })
  const base = `https://127.0.0.1:${(registry.app.server.address() as AddressInfo).port}`
  await testBehaviours(t, { registry: Object.assign(registry, { base }), options: tlsClient })
  t.notOk(warnings.some(text => text.includes(warning)))
})

t.test('transport: with a ws that frames differently the start warns, and ws sends each frame', async t => {
  const { registry, warnings } = await start(t, { before: app => app.register(fastifyWebsocket, padding) })
  const found = warnings.filter(text => text.includes(warning))
  t.equal(found.length, 1)
  t.match(JSON.parse(found[0]!), { fault: 'frames differ' })
  const watcher = await registry.watcher()
  const raw: string[] = []
  watcher.ws.on('message', data => raw.push(String(data)))
  watcher.send({ type: 'ping' })
  await watcher.next('pong')
  t.match(raw[0], /\} $/, 'sent by the WebSocket of the host')
  watcher.close()
  await testBehaviours(t, { registry })
})

const largeMetadata = (name: string) => ({ name, metadata: { text: ['x'.repeat(100_000)] } })

/** Changes one agent by a hundred kilobytes each time, until no network buffer holds it all. */
async function change (registry: Harness, rounds: number): Promise<string> {
  for (let round = 1; round <= rounds; round++) {
    await registry.join('agent-one', largeMetadata(`Round ${round}`))
    await new Promise(setImmediate)
  }
  return `Round ${rounds}`
}

/** A socket of each kind that gets state updates, on this network. */
async function openReaders (network: Pick<Tunnel, 'watcher' | 'agentSocket' | 'socket'>, token: string) {
  return { updates: await network.watcher(), lists: await network.agentSocket(token), data: await dashboard(network as Tunnel, token) }
}

const typesSeen = ({ all }: Client, type: string) =>
  all.filter(frame => type === 'list' ? Array.isArray(frame) : frame.type === type).length

t.test('slow reader: it gets the newest state on resuming, and its neighbours do not wait', async t => {
  const registry = await build(t, {
    agentsWs: { intervalMs: 1 },
    dashboardWs: {
      intervalMs: 50, maxConnections: 10
    },
    sockets: { agentsUpdateIntervalMs: 1, maxBufferedBytes: 1_000_000 },
    feed: { bookmarkIntervalMs: 200 }
  })
  const { token } = await registry.admin()
  const [slow, frozen] = [await Tunnel.open(t, registry), await Tunnel.open(t, registry)]
  const readers = [await openReaders(slow, token), await openReaders(frozen, token)]
  const [neighbours, follower] = [await openReaders(registry, token), await registry.agentSocket(token)]
  follower.send({ type: 'watch', snapshot: true })
  await follower.next('agents_snapshot')
  slow.restrict(10_000)
  frozen.restrict(0)
  const rounds = 250
  const newest = await change(registry, rounds)

  await nextWhere(neighbours.updates, 'agents_update', ({ data }) => data.agents[0].name === newest)
  await nextWhere(neighbours.lists, 'list', ([agent]) => agent.name === newest)
  await follower.next('bookmark')
  t.strictSame(viewOf(follower).faults, [], 'every change, in order')
  for (const client of Object.values(neighbours)) await assertAlive(client)
  for (const { updates, lists } of readers) t.ok(typesSeen(updates, 'agents_update') < rounds / 2 && typesSeen(lists, 'list') < rounds / 2)

  slow.release()
  frozen.release()
  const since = Date.now()
  for (const { updates, lists, data } of readers) {
    await nextWhere(updates, 'agents_update', ({ data }) => data.agents[0].name === newest)
    await nextWhere(lists, 'list', ([agent]) => agent.name === newest)
    await nextWhere(data, 'monitoring', ({ timestamp }) => Date.parse(timestamp) > since)
    t.ok(typesSeen(updates, 'agents_update') < rounds, `${typesSeen(updates, 'agents_update')} of ${rounds} updates`)
    for (const client of [updates, lists, data]) await assertAlive(client)
  }
})

/** The state of a watcher by its received frames. */
function viewOf ({ all }: Client): View {
  const view = new View()
  for (const frame of all) if (!Array.isArray(frame)) view.take(frame.type, frame)
  return view
}

for (const { name, ringSize } of [
  { name: 'goes on without a gap', ringSize: 10_000 }, { name: 'begins anew when too much was missed', ringSize: 20 }
]) {
  t.test(`slow reader: a watcher that resumes ${name}`, async t => {
    const registry = await build(t, { feed: { ringSize, bookmarkIntervalMs: 200 }, agentsWs: { intervalMs: 60_000 } })
    const network = await Tunnel.open(t, registry)
    const watcher = await network.agentSocket((await registry.admin()).token)
    watcher.send({ type: 'watch', snapshot: true })
    await watcher.next('agents_snapshot')
    network.restrict(0)
    await change(registry, 250)
    for (let i = 0; i < 50; i++) await registry.join(`agent-${i}`)
    await registry.app.agentRegistry.unregister('agent-7')
    network.release()
    const revision = (await registry.get('/agents', await registry.admin())).headers.get('x-registry-revision')
    await nextWhere(watcher, 'bookmark', (frame: Json) => frame.revision === revision, 20_000)
    const { faults, tally } = viewOf(watcher)
    t.strictSame(faults, [], 'each revision once, in order, and the digest matches')
    t.equal(tally.resyncs, ringSize < 100 ? 1 : 0)
    const deltas = typesSeen(watcher, 'agents_delta')
    t.ok(deltas < tally.changes || tally.resyncs > 0, `${tally.changes} changes in ${deltas} frames`)
  })
}

t.test('slow reader: unread answers are kept up to the limit, with any number of requesters', async t => {
  const registry = await build(t, { sockets: { maxBufferedBytes: 500_000 }, publicWs: { burst: 1000 } })
  for (let i = 0; i < 8; i++) await registry.join(`agent-${i}`, largeMetadata('Large'))
  const network = await Tunnel.open(t, registry)
  const [frozen, neighbour] = [await Promise.all(Array.from({ length: 20 }, () => network.watcher())), await registry.watcher()]
  network.restrict(0)
  const before = process.memoryUsage().rss
  for (let round = 0; round < 100; round++) {
    for (const client of frozen) client.send({ type: 'get_discovery' })
    if (round % 10 === 0) await assertAlive(neighbour)
  }
  neighbour.send({ type: 'get_discovery' })
  t.equal((await neighbour.next('discovery_data')).data.agents.length, 8)
  const grown = (process.memoryUsage().rss - before) / 1_048_576
  t.ok(grown < 500, `${Math.round(grown)} MiB for 1600 MiB of answers`)
  network.release()
  for (const client of frozen) t.strictSame(await client.closed, { code: 4008, reason: 'Slow consumer' })
  await until(async () => (await registry.get('/health')).status === 200)
})
