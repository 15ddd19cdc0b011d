import t from 'tap'
import { build, type Client, type Harness, type Json, sleep, until } from '../support/harness.js'
import { RedisProxy } from '../support/redis-proxy.js'
import { eventually, RedisServer } from '../support/redis-server.js'
import { away, back, faultOf, join, persist, type Process, start, through, unavailable } from '../support/broker-redis.js'
import { numbers } from '../../src/storage/contract/broker-scene.js'
import { answerTo, ask } from '../unit/sockets/channels-helper.js'

t.setTimeout(180_000)

const log = 'c:workflows/one'
const place = 'c:workflows/one'

/** Appends numbers to all logs until it is stopped. @returns the appended numbers */
function speak (process: Process, logs: readonly string[]) {
  let count = 0
  const ending = new AbortController()
  const running = (async () => {
    while (!ending.signal.aborted) {
      await Promise.all(logs.flatMap(log => numbers(5, count).map(text => process.say(log, text))))
      count += 5
      await sleep(2)
    }
  })()
  return async () => {
    ending.abort()
    await running
    return numbers(count)
  }
}

async function cut (proxy: RedisProxy, round: number) {
  proxy.close()
  await sleep(round % 3 * 40)
  proxy.reopen()
  await sleep(50 + round % 4 * 60)
}

t.test('redis broker: a repeatedly disconnected subscriber receives each message exactly once', async t => {
  const server = await start(t)
  const limits = { messaging: { limits: { entries: 100_000 } } }
  const [a, proxy] = await through(t, server, limits)
  const [b, other] = [await join(t, server, limits), await join(t, server, limits)]
  const logs = ['c:one', 'c:two', 'c:three/x', 'c:three/y']
  await Promise.all(
    [a.broker.follow('c:one'), a.broker.follow('c:two'), a.broker.followPattern('three/*'), other.broker.followPattern('**')]
  )
  await b.sayAll('c:three/x', ['first'])
  await b.sayAll('c:three/y', ['first'])
  await Promise.all(['c:three/x', 'c:three/y'].map(log => a.receives(log, 1)))
  const stop = speak(b, logs)
  for (let round = 0; round < 25; round++) {
    if (round % 5 === 4) await server.client.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
    await cut(proxy, round)
  }
  const said = await stop()
  for (const process of [a, other]) {
    await process.receives('c:one', said.length)
    await process.receives('c:two', said.length)
    await process.receives('c:three/x', said.length + 1)
    await process.receives('c:three/y', said.length + 1)
    t.same(process.textsOf('c:one'), said)
    t.same(process.textsOf('c:two'), said)
    t.same(process.textsOf('c:three/x'), ['first', ...said])
    t.same(process.textsOf('c:three/y'), ['first', ...said])
    t.same(process.gaps, [])
  }
})

t.test('redis broker: messages trimmed during a disconnect are reported as a gap, and the rest is delivered', async t => {
  const server = await start(t)
  const limits = { messaging: { limits: { entries: 10 } } }
  const [a, proxy] = await through(t, server, limits)
  const b = await join(t, server, limits)
  const { epoch } = await a.broker.follow(log)
  await a.broker.followPattern('met/*')
  for (const name of [log, 'c:met/1']) await b.sayAll(name, numbers(3))
  await a.receives('c:met/1', 3)
  await a.receives(log, 3)
  proxy.close()
  await away(a)
  for (const name of [log, 'c:met/1']) await b.sayAll(name, numbers(47, 3))
  proxy.reopen()
  for (const name of [log, 'c:met/1']) {
    t.same(await a.receives(name, 13), [...numbers(3), ...numbers(10, 40)])
    t.match(a.gaps.filter(loss => loss.log === name), [{ offset: 40 }])
  }
  t.equal(a.gaps.find(loss => loss.log === log)!.epoch, epoch)
  t.same(a.gaps.map(({ after, log }) => [a.received[after]!.log, a.received[after]!.offset, log]), a.gaps.map(({ log }) => [log, 41, log]))
  t.equal(a.gaps.length, 2)
})

t.test('redis broker: an append whose reply was lost is not stored twice when it is retried', async t => {
  const server = await start(t)
  const [a, proxy] = await through(t, server)
  const b = await join(t, server)
  await b.broker.follow(log)
  await a.say(log, 'before', { msgId: 'm0' })
  t.equal(proxy.mute('eval'), 1)
  t.match(await faultOf(a.say(log, 'cut', { msgId: 'm1' })), unavailable)
  const again = await persist(() => a.say(log, 'cut', { msgId: 'm1' }))
  t.match(again, { duplicate: true, offset: 2, epoch: b.received[1]!.epoch })
  await a.say(log, 'after', { msgId: 'm2' })
  t.same(await b.receives(log, 3), ['before', 'cut', 'after'])
  t.same((await b.broker.read(log, { limit: 10 })).entries.length, 3)
})

t.test('redis broker: a silent message connection is replaced, and missed messages are delivered', async t => {
  const server = await start(t)
  const [a, proxy] = await through(t, server)
  const b = await join(t, server)
  await a.broker.follow(log)
  await a.broker.watch(place)
  await b.say(log, '1')
  await a.receives(log, 1)
  t.equal(proxy.hang('subscribe'), 1)
  await b.sayAll(log, ['2', '3'])
  await b.broker.enter(place, 'p', '{}')
  t.match(await faultOf(a.broker.follow('c:other')), unavailable)
  t.match(await faultOf(a.broker.followPattern('other/*')), unavailable)
  t.match(await faultOf(a.broker.watch('c:other')), unavailable)
  t.same(await a.receives(log, 3), ['1', '2', '3'])
  await eventually('the gap is reported again', () => a.reloads.some(({ members }) => members.length === 1))
  await persist(() => a.broker.follow('c:other'))
  await persist(() => a.broker.followPattern('other/*'))
  await b.sayAll('c:other', ['x'])
  await b.sayAll('c:other/1', ['y'])
  t.same([await a.receives('c:other', 1), await a.receives('c:other/1', 1)], [['x'], ['y']])
})

t.test('redis broker: a gap that Redis could not fill is filled when Redis can', async t => {
  const server = await start(t)
  const [a, b] = [await join(t, server), await join(t, server)]
  await a.broker.follow(log)
  await b.say(log, '1')
  await a.receives(log, 1)
  const entries = `{ar:n}:entries:${log}`
  await server.client.rename(entries, 'aside')
  await server.client.set(entries, 'no stream')
  // A message with the number of the fifth entry: three are missing.
  await server.client.publish(`{ar:n}:log:${log}`, `${a.received[0]!.epoch} 5 0\n["x",-1,null]\n"5"`)
  await eventually('it requested them', async () => (await server.client.info('errorstats')).includes('WRONGTYPE'))
  await server.client.rename('aside', entries)
  await b.sayAll(log, ['2', '3'])
  t.same(await a.receives(log, 3), ['1', '2', '3'])
  t.same(a.gaps, [])
})

t.test('redis broker: a refused Redis subscription is retried until it succeeds', async t => {
  const server = await start(t)
  const [a, b] = [await join(t, server), await join(t, server)]
  await a.broker.follow(log)
  await a.broker.followPattern('other/*')
  await b.say(log, '1')
  await a.receives(log, 1)
  await server.client.call('ACL', 'SETUSER', 'default', 'resetchannels')
  await server.client.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  await eventually('it was refused several times', async () =>
    Number(/errorstat_NOPERM:count=(\d+)/.exec(await server.client.info('errorstats'))?.[1]) >= 20)
  await server.client.call('ACL', 'SETUSER', 'default', 'allchannels')
  await persist(() => b.say(log, '2'))
  t.same(await a.receives(log, 2), ['1', '2'])
  await b.sayAll('c:other/1', ['x'])
  t.same(await a.receives('c:other/1', 1), ['x'])
  t.same(a.gaps, [])
})

t.test('redis broker: while Redis is stopped every call is refused in time and has no later effect', async t => {
  const server = await start(t)
  const [a, b] = [await join(t, server), await join(t, server)]
  await a.broker.follow(log)
  await a.say(log, 'before')
  await a.broker.watch(place)
  await a.broker.enter(place, 'stays', '1')
  await a.broker.enter(place, 'goes', '{}')
  await b.broker.enter('c:other', 'p', '{}')
  server.freeze()
  const begun = Date.now()
  const calls = () => [
    a.say(log, 'during'), a.broker.read(log, { limit: 1 }), a.broker.follow('c:new'), a.broker.followPattern('new/*'),
    a.broker.enter(place, 'comes', '{}'), a.broker.enter(place, 'stays', '2'), a.broker.leave(place, 'goes'), a.broker.roster(place),
    a.broker.watch('c:new')
  ]
  for (const fault of await Promise.all(calls().map(faultOf))) t.match(fault, unavailable)
  await away(a, b)
  for (const fault of await Promise.all(calls().map(faultOf))) t.match(fault, unavailable)
  a.broker.sendToProcess(b.broker.process, 'lost')
  t.ok(Date.now() - begun < 20_000)
  server.thaw()
  await back(a, b)
  await eventually('every outcome is as reported', async () => (await a.membersOf(place)).join() === 'stays 1')
  await persist(() => a.say(log, 'after'))
  t.same(await a.receives(log, 2), ['before', 'after'])
  t.same(await b.membersOf(place), ['stays 1'])
  t.same(await a.membersOf('c:other'), ['p {}'])
  t.same(a.gaps, [])
})

const channel = 'workflows/run-1/results'
const outageMs = 10_000
const rates = { messagesPerSecond: 1_000_000, burst: 1_000_000 }

interface Published { readonly data: string, readonly answer: Promise<Json> }

/** Publishes continuously, and records each outcome. */
class Publisher {
  readonly published: Published[] = []
  readonly #client: Client
  readonly #name: string
  #isStopped = false

  constructor (client: Client, name: string) {
    this.#client = client
    this.#name = name
  }

  async run (): Promise<void> {
    while (!this.#isStopped) {
      const data = `${this.#name}-${this.published.length}`
      this.#client.send({ type: 'publish', requestId: data, channel, data, msgId: data })
      this.published.push({ data, answer: answerTo(this.#client, data) })
      await sleep(20)
    }
  }

  stop (): void {
    this.#isStopped = true
  }
}

t.test('publish: while Redis is stopped the publisher gets either an error or a confirmation', async t => {
  const server = await RedisServer.start()
  t.teardown(() => server.stop())
  const options = {
    storage: 'redis', redis: { url: server.path }, agentsWs: { ...rates, intervalMs: 60_000 }, messaging: { historyEntries: 10_000 }
  } as const
  const registries = [await build(t, options), await build(t, options)] as [Harness, Harness]
  const publishers: Publisher[] = []
  for (const [index, registry] of registries.entries()) {
    publishers.push(new Publisher(await registry.agentSocket(await registry.join(`agent-${index}`)), `p${index}`))
  }
  const running = Promise.all(publishers.map(async publisher => { await publisher.run() }))
  await sleep(500)
  server.freeze()
  await sleep(outageMs)
  server.thaw()
  const later = publishers.map(({ published }) => published.length)
  await until(async () => (await publishers[0]!.published.at(-1)!.answer).type === 'ack', 20_000)
  await sleep(500)
  for (const publisher of publishers) publisher.stop()
  await running

  const all = publishers.flatMap(({ published }) => published)
  const answers = await Promise.all(all.map(async ({ data, answer }) => ({ data, ...await answer })))
  t.ok(answers.every(({ type, code }) => type === 'ack' || code === 'storage_unavailable'), 'each publish was answered with one of the two')
  t.ok(answers.some(({ code }) => code === 'storage_unavailable'))
  t.ok(later.every((count, index) => count < publishers[index]!.published.length), 'the client resumes when Redis is back')

  const reader = await registries[1].agentSocket(await registries[1].join('agent-reader'))
  const acked = answers.filter(({ type }) => type === 'ack')
  const kept = new Map<string, Json>()
  for (let since: Json = { epoch: acked[0]!.epoch, offset: 0 }; ;) {
    const { messages } = await ask(reader, { type: 'history', channel, since, limit: 1000 })
    for (const message of messages) kept.set(message.data, message)
    if (messages.length === 0) break
    since = { epoch: messages.at(-1).epoch, offset: messages.at(-1).offset }
  }
  t.same(acked.filter(({ data, epoch, offset }) => kept.get(data)?.offset !== offset || kept.get(data)?.epoch !== epoch), [],
    'each acknowledged message is stored at its position')
  t.same([...kept.values()].map(({ offset }) => offset), Array.from(kept, (_, index) => index + 1), 'without a gap')

  const [refused] = answers.filter(({ code }) => code === 'storage_unavailable')
  const again = await ask(reader, { type: 'publish', channel, data: 'again', msgId: refused!.data })
  t.equal(again.type, 'ack')
  t.equal(again.duplicate, undefined, 'a msgId is scoped to its sender')
})
