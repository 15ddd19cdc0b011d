import type { Socket } from 'node:net'
import fastifyWebsocket from '@fastify/websocket'
import t from 'tap'
import { type AgentRegistryOptions, MemoryAgentStore } from '../../../src/index.js'
import { createFrameRates, FrameRate, rateLimitKey } from '../../../src/limits/frame-rate.js'
import { SharedBuckets } from '../../../src/limits/shared-buckets.js'
import { resolveOptions } from '../../../src/options.js'
import { build, type Client, type Json, sleep, until } from '../../support/harness.js'
import { manualClock, principal, start } from '../auth/helper.js'
import { assertAlive, nextWhere, rawOf, sendTogether } from './helper.js'

const ping = (requestId: string) => ({ type: 'ping', requestId })
const pings = (count: number, name = 'r') => Array.from({ length: count }, (_, i) => ping(`${name}${i}`))

/** Options of a registry with a manual clock. */
function timed (options: AgentRegistryOptions) {
  const clock = manualClock(Date.now())
  return {
    clock, options: { ...options, storage: { agents: new MemoryAgentStore({ leaseMs: 3_600_000, retentionMs: 3_600_000, clock }) } }
  }
}

/** The answer to one ping: `pong`, or the error that refuses it. */
async function answerTo (client: Client, requestId = `r-${Math.random()}`): Promise<Json> {
  client.send(ping(requestId))
  for (;;) {
    const frame = await client.next()
    if (frame.requestId === requestId) return frame
  }
}

const refusedFor = (retryAfterMs: number) => ({ type: 'error', code: 'rate_limited', message: 'Too many messages', retryAfterMs })

t.test('flood: at ten times the rate the excess is refused, and every neighbour gets all answers', async t => {
  const registry = await build(t, { agentsWs: { messagesPerSecond: 50, burst: 50 }, publicWs: { messagesPerSecond: 50, burst: 50 } })
  const flood = await registry.agentSocket(await registry.join('agent-flood'))
  const neighbours = [await registry.agentSocket(await registry.join('agent-calm')), await registry.watcher()]
  const started = Date.now()
  const sending = setInterval(() => { for (let i = 0; i < 25; i++) flood.send(ping(`${i}`)) }, 50)
  for (let round = 0; round < 40; round++) {
    const answers = await Promise.all(neighbours.map(client => answerTo(client)))
    t.strictSame(answers.map(({ type }) => type), ['pong', 'pong'])
    await sleep(50)
  }
  clearInterval(sending)
  await assertRefusing(flood)
  const seconds = (Date.now() - started) / 1000
  const acted = flood.all.filter(({ type }) => type === 'pong').length
  const refused = flood.all.filter(({ code }) => code === 'rate_limited').length
  t.ok(acted >= 50 && acted <= 50 + 50 * seconds + 1, `${acted} of ${acted + refused} in ${seconds} s`)
  t.ok(refused > 200, `${refused} refused`)
})

/** Waits until all earlier frames are answered. */
async function assertRefusing (client: Client): Promise<void> {
  await answerTo(client)
}

const rates: Array<[name: string, options: AgentRegistryOptions]> = [
  ['a connection', { agentsWs: { messagesPerSecond: 4, burst: 3 } }],
  ['an agent', { sockets: { messagesPerSecondPerPrincipal: 4, burstPerPrincipal: 3 } }],
  ['an address', { sockets: { messagesPerSecondPerAddress: 4, burstPerAddress: 3 } }]
]
for (const [name, limits] of rates) {
  t.test(`rate limit: the retry time is exact to the millisecond (${name})`, async t => {
    const { clock, options } = timed(limits)
    const registry = await build(t, options)
    const headers = { authorization: `Bearer ${await registry.join()}` }
    const client = registry.socket('/agents/ws', [], { headers })
    await client.next('list')
    for (let i = 0; i < 3; i++) t.equal((await answerTo(client)).type, 'pong')
    t.strictSame(await answerTo(client, 'x'), { ...refusedFor(250), requestId: 'x' })
    clock.advance(249)
    t.match(await answerTo(client), refusedFor(1))
    clock.advance(1)
    t.equal((await answerTo(client)).type, 'pong')
    t.match(await answerTo(client), refusedFor(250))
  })
}

t.test('rate limit: all sockets of an agent share one limit, and two agents behind one address do not', async t => {
  const { clock, options } = timed({ sockets: { messagesPerSecondPerPrincipal: 1, burstPerPrincipal: 4 } })
  const registry = await build(t, options)
  const token = await registry.join('agent-one')
  const [first, second, other] = [
    await registry.agentSocket(token), await registry.agentSocket(token), await registry.agentSocket(await registry.join('agent-two'))
  ]
  t.strictSame([
    (await answerTo(first)).type, (await answerTo(second)).type, (await answerTo(first)).type, (await answerTo(second)).type
  ], ['pong', 'pong', 'pong', 'pong'])
  for (const client of [first, second]) t.match(await answerTo(client), refusedFor(1000))
  for (let i = 0; i < 4; i++) t.equal((await answerTo(other)).type, 'pong')
  t.match(await answerTo(other), refusedFor(1000))
  second.terminate()
  const third = registry.socket('/agents/ws', [], { headers: { authorization: `Bearer ${token}` } })
  await third.next('list')
  t.match(await answerTo(third), refusedFor(1000), 'a new socket does not reset the limit')
  clock.advance(1000)
  t.equal((await answerTo(third)).type, 'pong')
  t.match(await answerTo(first), refusedFor(1000), 'which was the only one left for all of them')
})

t.test('rate limit: sockets of one address share one limit, and other addresses are not affected', async t => {
  const { options } = timed({ sockets: { messagesPerSecondPerAddress: 1, burstPerAddress: 6 } })
  const registry = await build(t, options)
  const agent = await registry.agentSocket(await registry.join())
  const watcher = await registry.watcher()
  const elsewhere = registry.socket('/public/ws', [], { localAddress: '127.0.0.2' })
  await elsewhere.next('welcome')
  for (let i = 0; i < 5; i++) t.equal((await answerTo(i % 2 ? agent : watcher)).type, 'pong', 'after the token frame')
  for (const client of [agent, watcher]) t.match(await answerTo(client), refusedFor(1000))
  t.equal((await answerTo(elsewhere)).type, 'pong')
})

t.test('rate limit: a sender that ignores it for ten seconds is closed, and its neighbour is not', async t => {
  const {
    clock, options
  } = timed({ agentsWs: { messagesPerSecond: 1, burst: 1 }, sockets: { messagesPerSecondPerAddress: 1, burstPerAddress: 2 } })
  const registry = await build(t, options)
  const open = async (id: string) => {
    const client = registry.socket('/agents/ws', [], { headers: { authorization: `Bearer ${await registry.join(id)}` } })
    await client.next('list')
    return client
  }
  const [flood, neighbour] = [await open('agent-flood'), await open('agent-calm')]
  const codes = []
  for (let elapsed = 0; elapsed <= 10_000; elapsed += 250) {
    for (let i = 0; i < 3; i++) await answerTo(flood)
    if (elapsed % 2000 === 0) codes.push((await answerTo(neighbour)).code)
    clock.advance(250)
  }
  t.equal(flood.ws.readyState, flood.ws.OPEN)
  t.ok(codes.includes('rate_limited'))
  for (let i = 0; i < 2; i++) flood.send({ type: 'ping' })
  t.strictSame(await flood.closed, { code: 4029, reason: 'Too many messages' })
  clock.advance(10_000)
  t.equal((await answerTo(neighbour)).type, 'pong')
})

t.test('flood: it is read more slowly than it arrives, and the sender continues afterwards', async t => {
  const serverSides: Socket[] = []
  const registry = await build(t, { publicWs: { messagesPerSecond: 50, burst: 5 } }, {
    before: app => { app.server.on('connection', socket => { serverSides.push(socket) }) }
  })
  const flood = await registry.watcher()
  const reading = serverSides.at(-1)!
  const neighbour = await registry.agentSocket(await registry.join())
  for (let i = 0; i < 20; i++) {
    sendTogether(flood, pings(1000, `${i}-`))
    await assertAlive(neighbour)
  }
  await until(() => reading.isPaused())
  await until(() => flood.all.length > 20_000, 30_000)
  const answered = flood.all.filter(({ requestId }) => requestId !== undefined)
  t.equal(new Set(answered.map(({ requestId }) => requestId)).size, 20_000, 'and every frame is answered')
  await until(() => !reading.isPaused())
  await sleep(200)
  t.equal((await answerTo(flood)).type, 'pong')
})

t.test('flood: it does not delay the close of the server', async t => {
  const registry = await build(t, { publicWs: { messagesPerSecond: 1, burst: 1 } })
  const flood = await registry.watcher()
  sendTogether(flood, pings(5000))
  await flood.next('error')
  const started = Date.now()
  const closing = registry.app.close()
  t.equal((await flood.closed).code, 1001)
  await closing
  t.ok(Date.now() - started < 5000)
})

t.test('flood: before authentication it is refused without effect on other clients and on the sender\'s limits', async t => {
  const registry = await build(t, { agentsWs: { messagesPerSecond: 20, burst: 20 } })
  const token = await registry.join()
  const [flood, neighbour] = [registry.socket('/agents/ws'), await registry.agentSocket(await registry.join('agent-calm'))]
  await flood.next('auth_required')
  sendTogether(flood, pings(3000))
  await assertAlive(neighbour)
  await until(() => flood.all.length >= 3000)
  t.ok(flood.all.filter(({ type }) => type === 'pong').length < 500)
  await sleep(500)
  flood.send({ token })
  await flood.next('auth_success')
  await assertAlive(neighbour)
})

const pad = (bytes: number) => 'x'.repeat(bytes)

t.test('authentication: frames before the token are queued up to the size of one frame, then the socket closes', async t => {
  const registry = await build(t)
  const token = await registry.join()
  const [small, large] = [registry.socket('/agents/ws'), registry.socket('/agents/ws')]
  for (const client of [small, large]) await client.next('auth_required')
  small.send({ type: 'unwatch', requestId: 'kept', pad: pad(60_000) })
  small.send({ token })
  await nextWhere(small, 'ack', ({ requestId }) => requestId === 'kept')
  for (let i = 0; i < 2; i++) large.send({ type: 'unwatch', pad: pad(40_000) })
  t.equal((await large.next('auth_error')).message, 'Token required')
  t.strictSame(await large.closed, { code: 1008, reason: 'Authentication required' })
})

t.test('backpressure: while a frame is handled the socket is not read', async t => {
  const serverSides: Socket[] = []
  let release = () => {}
  const registry = await build(t, {
    authenticate: () => new Promise(resolve => {
      release = () =>
        resolve(null)
    }),
    limits: { hookTimeoutMs: 60_000 }
  }, {
    before: app => { app.server.on('connection', socket => { serverSides.push(socket) }) }
  })
  const client = registry.socket('/agents/ws')
  await client.next('auth_required')
  const [reading] = serverSides
  client.send({ token: 'whose' })
  for (let i = 0; i < 200; i++) client.send({ type: 'unwatch', pad: pad(60_000) })
  await until(() => reading!.isPaused())
  await sleep(300)
  t.ok(reading!.bytesRead < 2_000_000, `${reading!.bytesRead} bytes of 12,000,000`)
  t.ok(rawOf(client).writableLength > 0, 'the sender has to wait')
  release()
  t.equal((await client.closed).code, 1008)
})

t.test('backpressure: queued frames are bounded by their inflated size', async t => {
  let receiving: Socket
  const registry = await build(t, {
    agentsWs: { burst: 1000 }, authenticate: () => new Promise(() => {}), limits: { hookTimeoutMs: 60_000 }
  }, {
    before: async app => {
      app.server.on('connection', socket => { receiving = socket })
      await app.register(fastifyWebsocket, { options: { perMessageDeflate: true } })
    }
  })
  const client = registry.socket('/agents/ws', [], { perMessageDeflate: { threshold: 0 } })
  await client.next('auth_required')
  t.match(client.ws.extensions, /permessage-deflate/)
  receiving!.pause()
  for (const frame of [{ token: 'whose' }, ...Array.from({ length: 40 }, () => ({ type: 'unwatch', pad: pad(60_000) }))]) client.send(frame)
  await until(() => client.ws.bufferedAmount === 0)
  receiving!.resume()
  t.strictSame(await client.closed, { code: 4029, reason: 'Too many messages' })
})

const agent = principal({ agentId: 'agent-one', subject: 'agent-one' })

/** The configured rates, with a manual clock. */
function createRates (sockets: object) {
  const now = manualClock()
  const rates = createFrameRates(resolveOptions({ sockets }), now)
  const connection = (addressKey = '192.0.2.1', perSecond = 1000) =>
    new FrameRate(rates, { perSecond, burst: perSecond }, { addressKey, now: now() })
  return { now, rates, connection }
}

t.test('rate buckets: a bucket is shared while in use, kept until full, and dropped without a timer', async t => {
  const now = manualClock()
  const buckets = new SharedBuckets({ perSecond: 10, burst: 2 }, now)
  const [first, second] = [buckets.join('a'), buckets.join('a')]
  t.equal(first, second)
  t.strictSame([first.bucket.take(now()), second.bucket.take(now()), first.bucket.take(now())], [0, 0, 100])
  buckets.leave(first)
  buckets.leave(second)
  t.equal(buckets.size, 1)
  const again = buckets.join('a')
  t.equal(again.bucket.take(now()), 100, 'a new connection does not reset the limit')
  buckets.leave(again)
  now.advance(200)
  const full = buckets.join('a')
  t.not(full.bucket, again.bucket, 'full again, and dropped')
  buckets.leave(full)
  t.equal(buckets.size, 0)
  for (let i = 0; i < 10_000; i++) {
    const one = buckets.join(`key-${i}`)
    one.bucket.take(now())
    buckets.leave(one)
    now.advance(1)
  }
  t.ok(buckets.size < 500, `${buckets.size} of 10,000 are kept`)
})

t.test('rate buckets: a refused frame takes tokens from no bucket, and its wait is the longest', async t => {
  const {
    now, rates, connection
  } = createRates({ messagesPerSecondPerPrincipal: 10, burstPerPrincipal: 2, messagesPerSecondPerAddress: 4, burstPerAddress: 3 })
  const [one, other] = [connection(), connection()]
  one.setPrincipal(agent)
  t.strictSame([one.take(now()), one.take(now())], [0, 0])
  t.equal(one.take(now()), 100, 'the principal has no token left')
  t.equal(other.take(now()), 0, 'the third of the address, which the refused frame did not take')
  t.equal(one.take(now()), 250, 'after which both have one')
  now.advance(249)
  t.equal(one.take(now()), 1)
  t.equal(other.take(now()), 1)
  now.advance(1)
  t.equal(one.take(now()), 0)
  t.equal(connection('192.0.2.2').take(now()), 0, 'another address is not affected')
  one.leave()
  other.leave()
  t.equal(rates.principals.size, 1, 'until it is full')
})

t.test('rate buckets: an agent is one sender with any token, and others are keyed by role and subject', async t => {
  const same = [agent, principal({ agentId: 'agent-one', subject: 'somebody', tokenId: 'other' })]
  const others = [principal(
    { type: 'user', role: 'user', agentId: null, subject: 'agent-one' }
  ), principal({ type: 'admin', role: 'admin', agentId: null, subject: 'agent-one' }), principal({ agentId: 'agent-two' })]
  t.equal(new Set(same.map(rateLimitKey)).size, 1)
  t.equal(new Set([...same, ...others].map(rateLimitKey)).size, 4)
  const { now, connection } = createRates({ messagesPerSecondPerPrincipal: 1, burstPerPrincipal: 1 })
  const moved = connection()
  moved.setPrincipal(agent)
  moved.setPrincipal(same[1]!)
  t.strictSame([moved.take(now()), moved.take(now())], [0, 1000])
  moved.setPrincipal(others[0]!)
  t.equal(moved.take(now()), 0, 'a different sender now')
  const back = connection()
  back.setPrincipal(agent)
  t.equal(back.take(now()), 1000, 'earlier use still counts')
})

t.test('rate buckets: default rates derive from the rate of a connection and the slots of the tiers', async t => {
  const filled = async (options: object) => {
    const { principals, addresses } = createFrameRates(resolveOptions(options), manualClock())
    return [principals, addresses].map(buckets => {
      const { bucket } = buckets.join('a')
      let count = 0
      while (bucket.take(start) === 0) count++
      return [count, Math.round(bucket.fullAt - start)]
    })
  }
  t.strictSame(await filled({}), [[400, 2000], [2000, 2000]])
  t.strictSame(await filled({ agentsWs: { messagesPerSecond: 10, burst: 1000, maxConnections: 9895 } }), [[2000, 10_000], [20_000, 2000]])
})

t.test('abuse: it needs ten seconds without a second of pause, and a client that obeys is not blamed', async t => {
  const { now, connection } = createRates({ messagesPerSecondPerAddress: 10, burstPerAddress: 10 })
  const [flood, pausing] = [connection('a', 2), connection('b', 2)]
  let [elapsed, abuseAt] = [0, 0]
  for (; elapsed <= 12_000; elapsed += 100) {
    flood.take(now())
    if (elapsed % 2000 < 500) pausing.take(now())
    if (flood.isAbuse) abuseAt ||= elapsed
    now.advance(100)
  }
  t.ok(abuseAt > 10_000 && abuseAt < 11_000, `after ${abuseAt} ms`)
  t.notOk(pausing.isAbuse)
  const [greedy, obedient, deaf] = [connection('c'), connection('c'), connection('c')]
  let due = 0
  for (elapsed = 0; elapsed <= 12_000; elapsed += 20) {
    greedy.take(now())
    deaf.take(now())
    if (elapsed >= due) due = elapsed + Math.max(500, obedient.take(now()))
    now.advance(20)
  }
  t.notOk(obedient.isAbuse)
  t.ok(deaf.isAbuse, 'a client that does not wait is')
})

t.test('flood: refusals faster than any use are a flood while they last', async t => {
  const { now, connection } = createRates({})
  const sender = connection('a', 1)
  for (let i = 0; i <= 100; i++) sender.take(now())
  t.notOk(sender.isFlood)
  sender.take(now())
  t.ok(sender.isFlood)
  now.advance(100)
  sender.take(now())
  t.notOk(sender.isFlood)
})
