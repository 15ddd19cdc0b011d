import t, { type Test } from 'tap'
import { monotonicClock } from '../../../src/lib/clock.js'
import type { MemoryMessageBrokerOptions } from '../../../src/storage/memory/message-broker.js'
import { Deadlines } from '../../../src/lib/deadlines.js'
import { Direct } from '../../../src/messaging/direct/direct.js'
import { Peers } from '../../../src/messaging/peer.js'
import { ProcessMessages } from '../../../src/messaging/process-messages.js'
import { sleep, until, type Json } from '../../support/harness.js'
import { Faulty, Listener } from './line-scene.js'

interface Scene {
  broker: Faulty
  direct: Direct
  errors: unknown[]
  join: (peer: Listener) => Listener
  leave: (peer: Listener) => void
  post: (data: Json, more?: { to?: string, msgId?: string, level?: 'accepted' | 'delivered' }) => ReturnType<Direct['post']>
}

/** Direct messages without sockets: joined peers are connected, and names that begin with `agent` are registered. */
async function open (t: Test, { faults = 0, ...options }: MemoryMessageBrokerOptions & { faults?: number } = {}): Promise<Scene> {
  const broker = new Faulty(options)
  const processMessages = new ProcessMessages(broker)
  const deadlines = new Deadlines(monotonicClock())
  const peers = new Peers()
  const errors: unknown[] = []
  const direct = new Direct({
    broker,
    processMessages,
    deadlines,
    peers,
    maxDataBytes: 100_000,
    receiptMs: 100,
    metadataOf: id => peers.of(id).length > 0 || id === 'agent-elsewhere' ? '{"role":"agent"}' : undefined,
    registeredAt: id => id.startsWith('agent') ? 0 : undefined,
    onError: error => { errors.push(error) }
  })
  await broker.open({
    appended: (log, epoch, entry) => { direct.appended(log, epoch, entry) },
    logGap: (log, position) => { direct.logGap(log, position) },
    presenceChanged () {},
    presenceReloaded () {},
    processMessage: (from, body) => { processMessages.received(from, body) }
  })
  broker.faults = faults
  await direct.open()
  // The timers under test are unreferenced.
  const alive = setInterval(() => {}, 1000)
  t.teardown(async () => {
    clearInterval(alive)
    direct.close()
    deadlines.close()
    await broker.close()
  })
  return {
    broker,
    direct,
    errors,
    join (peer) {
      direct.addPeer(peer, peers.add(peer))
      return peer
    },
    leave (peer) { direct.removePeer(peer, peers.delete(peer)) },
    post: (data, { to = 'agent-two', ...more } = {}) => direct.post('agent-one', { to, data, ...more })
  }
}

const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index)
const away = { code: 'AGENT_REGISTRY_STORAGE_UNAVAILABLE' }

async function replay (scene: Scene, peer: Listener, since?: { epoch: string, offset: number }) {
  const { start, ...answer } = await scene.direct.replay(peer, since)
  start()
  return answer
}

t.test('direct messages: an inbox that could not be followed is followed later if it is still needed', async t => {
  const scene = await open(t)
  scene.broker.faults = 2
  const two = scene.join(new Listener('agent-two'))
  const gone = scene.join(new Listener('agent-gone'))
  await scene.post('before')
  scene.leave(gone)
  await until(async () => {
    await scene.post('after')
    return two.data.length > 0
  })
  t.notOk(two.data.includes('before'))
  t.strictSame(scene.errors, [])
  await replay(scene, two)
  await until(() => two.data.includes('before'))
  t.strictSame(gone.frames, [])
})

t.test('direct messages: a peer that leaves during the inbox lookup is unfollowed, unless it reconnects', async t => {
  const scene = await open(t)
  for (const faults of [0, 1]) {
    scene.broker.faults = faults
    const two = scene.join(new Listener('agent-two'))
    scene.leave(two)
    await scene.post('nobody')
    t.strictSame(two.frames, [])
    const again = scene.join(new Listener('agent-two'))
    await scene.post('somebody')
    await until(() => again.data.length > 0)
    scene.leave(again)
  }
})

t.test('direct messages: a broker fault other than an outage is logged', async t => {
  const scene = await open(t)
  scene.broker.error = () => new Error('broken')
  scene.broker.faults = 1
  scene.join(new Listener('agent-two'))
  await until(() => scene.errors.length > 0)
  t.match(scene.errors, [{ message: 'broken' }])
})

t.test('direct messages: a registry started during a broker outage receives broadcasts afterwards', async t => {
  const scene = await open(t, { faults: 1 })
  const two = scene.join(new Listener('agent-two'))
  const speaker = new Listener('agent-speaker', { grants: [{ channels: [], allow: ['broadcast'] }] })
  await until(async () => {
    await scene.direct.broadcast(speaker, { data: 'all' })
    return two.frames.length > 0
  })
  t.match(two.frames[0], { type: 'message', from: 'agent-speaker', to: null, content: 'all' })
})

t.test('direct messages: a sender that waits for delivery learns of no delivery in time, of failure, and of shutdown', async t => {
  const scene = await open(t)
  t.match(await scene.post(1, { to: 'agent-elsewhere', level: 'delivered' }), { delivered: false }, 'no connection there has it')
  t.match(await scene.post(1, { to: 'agent-away', level: 'delivered' }), { delivered: false }, 'at once')
  scene.broker.faults = 1
  await t.rejects(scene.post(1, { to: 'agent-elsewhere', level: 'delivered' }), away)
  const waiting = scene.post(1, { to: 'agent-elsewhere', level: 'delivered' })
  await sleep(5)
  scene.direct.close()
  t.match(await waiting, { delivered: false })
})

t.test('direct messages: a connection whose inbox cannot be read is treated as one without a replay', async t => {
  const scene = await open(t)
  const two = scene.join(new Listener('agent-two'))
  await scene.post(1)
  await until(() => two.data.length === 1)
  scene.broker.faults = 1
  const asked = scene.direct.replay(two, undefined)
  scene.broker.listener.appended('i:agent-two', 'other', { offset: 1, from: 'x', data: 'd2', at: 0 })
  scene.broker.listener.logGap('i:agent-two', { epoch: 'other', offset: 5 })
  await t.rejects(asked, away)
  t.strictSame(two.data, [1, 2], 'messages received meanwhile were delivered')
  t.match(two.frames.at(-1), { type: 'inbox_gap', epoch: 'other', offset: 5, recovered: false })
})

t.test('direct messages: a slow reader is replayed slowly, also during a broker outage, and misses nothing', async t => {
  const scene = await open(t)
  const text = 'x'.repeat(50_000)
  for (const n of numbers(0, 150)) await scene.post(n % 10 === 0 ? { n, text } : { n })
  const two = new Listener('agent-two')
  two.reads = false
  scene.join(two)
  t.match(await replay(scene, two), { offset: 150, recovered: true })
  await until(() => two.go)
  t.ok(two.data.length < 100, 'it has to read the sent frames first')
  await scene.post({ n: 150 })
  t.equal((await scene.post({ n: 151 })).offset, 152)
  scene.broker.faults = 1
  two.reads = true
  two.go!()
  await until(() => two.data.length === 152)
  t.strictSame(two.data.map(({ n }) => n), numbers(0, 152))
  await scene.post({ n: 152 })
  await until(() => two.data.length === 153)
  t.match(await replay(scene, two, { epoch: 'forgotten', offset: 3 }), { recovered: false, offset: 153 })
  await scene.post({ n: 153 })
  await until(() => two.data.length === 154)
  t.strictSame(two.data.map(({ n }) => n), numbers(0, 154), 'a second replay returned the rest')
})

t.test('direct messages: a message counts as delivered when it is read', async t => {
  const scene = await open(t)
  const two = new Listener('agent-two')
  two.reads = false
  await scene.post('x'.repeat(99_000))
  await scene.post('y'.repeat(99_000))
  await scene.post('z'.repeat(99_000))
  scene.join(two)
  await replay(scene, two)
  await until(() => two.go)
  const waiting = scene.post('last', { level: 'delivered' })
  t.notOk(two.data.includes('last'))
  two.reads = true
  two.go!()
  t.match(await waiting, { delivered: true })
  t.equal(two.data.at(-1), 'last')
})

t.test('direct messages: a reader that falls behind the retained messages is notified of the gap', async t => {
  const scene = await open(t, { limits: { entries: 120 } })
  for (const n of numbers(0, 120)) await scene.post(n === 99 ? 'x'.repeat(99_000) : n === 50 || n === 98 ? 'y'.repeat(90_000) : n)
  const two = new Listener('agent-two')
  two.reads = false
  const { epoch } = await replay(scene, scene.join(two))
  await until(() => two.go)
  for (const n of numbers(120, 300)) await scene.post(n)
  two.reads = true
  two.go!()
  await until(() => two.data.at(-1) === 299)
  t.strictSame(two.frames.filter(({ type }) => type === 'inbox_gap'), [{ type: 'inbox_gap', epoch, offset: 180, recovered: false }])
  const after = two.frames.slice(two.frames.findIndex(({ type }) => type === 'inbox_gap') + 1)
  t.strictSame(after.map(({ offset }) => offset), numbers(181, 301))
})

t.test('direct messages: a lost inbox repeats no message and reports the gap', async t => {
  const scene = await open(t)
  const two = scene.join(new Listener('agent-two'))
  const { epoch } = await replay(scene, two, undefined)
  await scene.post(1)
  await until(() => two.data.length === 1)
  scene.broker.listener.logGap('i:agent-two', { epoch: 'next', offset: 7 })
  scene.broker.listener.appended('i:agent-two', 'next', { offset: 8, from: 'x', data: 'd8', at: 0 })
  scene.broker.listener.appended('i:agent-two', 'next', { offset: 8, from: 'x', data: 'd8', at: 0 })
  t.strictSame(two.frames.map(({ type, offset }) => [type, offset]), [['direct', 1], ['inbox_gap', 7], ['direct', 8]])
  t.not(two.frames[2].epoch, epoch)
})

t.test('direct messages: replay stops for a closed connection', async t => {
  const scene = await open(t)
  for (const n of numbers(0, 250)) await scene.post(n)
  const two = scene.join(new Listener('agent-two'))
  const { start } = await scene.direct.replay(two, undefined)
  two.isOpen = false
  start()
  await sleep(20)
  t.equal(two.data.length, 100, 'but its started read')
})

t.test('direct messages: a failure during a replay is reported', async t => {
  const scene = await open(t)
  for (const n of numbers(0, 150)) await scene.post(n)
  const two = scene.join(new Listener('agent-two'))
  const { start } = await scene.direct.replay(two, undefined)
  scene.broker.error = () => new Error('broken')
  scene.broker.faults = 1
  start()
  await until(() => scene.errors.length > 0)
  await scene.post('next')
  await until(() => two.data.includes('next'))
  t.match(two.frames.at(-2), { type: 'inbox_gap' }, 'and the messages that it did not get')
})

t.test('direct messages: in the /v1 dialect every message is direct', async t => {
  const scene = await open(t)
  const two = scene.join(new Listener('agent-two', { dialect: 'v1' }))
  await scene.post({ a: 1 })
  await scene.direct.post('agent-one', { to: 'agent-two', data: 'small', format: 'small' })
  await until(() => two.data.length === 2)
  t.strictSame(two.data, [{ a: 1 }, 'small'])
  t.match(two.frames[1], { type: 'direct', from: 'agent-one', fromMetadata: undefined })
})

t.test('replay: two replays of one connection at the same time deliver each message once, and live messages after them', async t => {
  const scene = await open(t)
  for (const n of numbers(0, 150)) await scene.post(n)
  const three = scene.join(new Listener('agent-two'))
  const replays = [scene.direct.replay(three, undefined), scene.direct.replay(three, undefined)].map(async replay => {
    const { start, ...answer } = await replay
    const { offset: last } = await scene.post('during')
    start()
    return { ...answer, last }
  })
  const answers = await Promise.all(replays)
  t.match(answers, [{ offset: 150, recovered: true, last: 151 }, { offset: 151, recovered: true, last: 152 }])
  await scene.post('after')
  await until(() => three.data.includes('after'))
  t.strictSame(three.data, [...numbers(0, 150), 'during', 'during', 'after'])
})
