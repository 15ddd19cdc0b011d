import t from 'tap'
import { build, until } from '../helper.js'
import { ask, heard, nextMessage, peer, texts } from './channels-helper.js'
import { assertAlive, strangeFrames } from './helper.js'

const channel = 'workflows/run-1/subtasks'

t.test('what is published is heard by who is subscribed, and not by who published it', async t => {
  const registry = await build(t)
  const [one, two, three] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two'), await peer(registry, 'agent-three')]
  const first = await ask(one, { type: 'subscribe', channel })
  t.match(first, { type: 'ack', channel, epoch: String, offset: 0, recovered: true })
  await ask(two, { type: 'subscribe', channel })
  const published = await ask(one, { type: 'publish', channel, data: { text: 'hello', n: [1, null, 'ü'] } })
  t.same(published, { type: 'ack', requestId: published.requestId, channel, epoch: first.epoch, offset: 1 })
  const message = await nextMessage(two)
  t.same(message, { type: 'message', channel, from: 'agent-one', data: { text: 'hello', n: [1, null, 'ü'] }, epoch: first.epoch, offset: 1, timestamp: message.timestamp })
  t.ok(Math.abs(message.timestamp - Date.now() / 1000) < 10 && !Number.isInteger(message.timestamp * 1e-3))
  t.match(await ask(three, { type: 'publish', channel, data: null }), { type: 'ack', offset: 2 })
  t.match(await nextMessage(one), { from: 'agent-three', data: null, offset: 2 })
  t.match(await nextMessage(two), { data: null, offset: 2 })
  await ask(two, { type: 'unsubscribe', channel })
  await ask(two, { type: 'unsubscribe', channel })
  await ask(three, { type: 'publish', channel, data: 3 })
  await nextMessage(one)
  await assertAlive(two)
  t.same([texts(one), texts(two), texts(three)], [[null, 3], [{ text: 'hello', n: [1, null, 'ü'] }, null], []])
  for (const client of [one, two, three]) t.same(strangeFrames('agents', client.all), [])
})

t.test('a publisher hears itself when it asks for that, and by its other connections in any case', async t => {
  const registry = await build(t)
  const token = await registry.join('agent-one')
  const [one, other] = [await registry.agentSocket(token), await registry.agentSocket(token)]
  for (const client of [one, other]) await ask(client, { type: 'subscribe', channel })
  await ask(one, { type: 'publish', channel, data: 1 })
  await ask(one, { type: 'publish', channel, data: 2, echo: true })
  await ask(one, { type: 'publish', channel, data: 3, echo: false })
  await until(() => texts(other).length === 3)
  await assertAlive(one)
  t.same([texts(one), texts(other)], [[2], [1, 2, 3]])
})

t.test('a subscription goes on after the last position, and says whether it could', async t => {
  const registry = await build(t, { messaging: { historyEntries: 10 } })
  const [one, two] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two')]
  const { epoch } = await ask(one, { type: 'publish', channel, data: 1 })
  for (const data of [2, 3, 4, 5]) await ask(one, { type: 'publish', channel, data })
  t.match(await ask(two, { type: 'subscribe', channel, since: { epoch, offset: 2 } }), { epoch, offset: 5, recovered: true })
  await ask(one, { type: 'publish', channel, data: 6 })
  await until(() => texts(two).length === 4)
  t.same(heard(two).map(({ data, offset }) => [data, offset]), [[3, 3], [4, 4], [5, 5], [6, 6]])

  const three = await peer(registry, 'agent-three')
  t.match(await ask(three, { type: 'subscribe', channel, since: { epoch: 'another', offset: 2 } }), { epoch, offset: 6, recovered: false })
  await until(() => texts(three).length === 6)
  for (let data = 7; data <= 20; data++) await ask(one, { type: 'publish', channel, data })
  const four = await peer(registry, 'agent-four')
  t.match(await ask(four, { type: 'subscribe', channel, since: { epoch, offset: 6 } }), { epoch, offset: 20, recovered: false })
  await until(() => texts(four).length === 10)
  t.same(texts(four), [11, 12, 13, 14, 15, 16, 17, 18, 19, 20])
  const five = await peer(registry, 'agent-five')
  t.match(await ask(five, { type: 'subscribe', channel, since: { epoch, offset: 99 } }), { epoch, offset: 20, recovered: false })
  await ask(one, { type: 'publish', channel, data: 21 })
  await nextMessage(five)
  t.same(texts(five), [21])
})
