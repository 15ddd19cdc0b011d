import t from 'tap'
import { build, type Client, type Json, until } from '../../support/harness.js'
import { answerTo, ask, received, nextMessage, peer, texts } from './channels-helper.js'
import { assertAlive, nextWhere, undocumentedFrames } from './helper.js'

const channel = 'workflows/run-1/subtasks'

t.test('publish: subscribers receive the message, and the sender does not receive its own', async t => {
  const registry = await build(t)
  const [one, two, three] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two'), await peer(registry, 'agent-three')]
  const first = await ask(one, { type: 'subscribe', channel })
  t.match(first, { type: 'ack', channel, epoch: String, offset: 0, recovered: true })
  await ask(two, { type: 'subscribe', channel })
  const published = await ask(one, { type: 'publish', channel, data: { text: 'hello', n: [1, null, 'ü'] } })
  t.same(published, { type: 'ack', requestId: published.requestId, channel, epoch: first.epoch, offset: 1 })
  const message = await nextMessage(two)
  t.same(message, {
    type: 'message',
    channel,
    from: 'agent-one',
    data: {
      text: 'hello', n: [1, null, 'ü']
    },
    epoch: first.epoch,
    offset: 1,
    timestamp: message.timestamp
  })
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
  for (const client of [one, two, three]) t.same(undocumentedFrames('agents', client.all), [])
})

t.test('publish: the sender receives its message on request, and its other connections always do', async t => {
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

t.test('subscribe: a subscription resumes after the last position, and states whether it could', async t => {
  const registry = await build(t, { messaging: { historyEntries: 10 } })
  const [one, two] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two')]
  const { epoch } = await ask(one, { type: 'publish', channel, data: 1 })
  for (const data of [2, 3, 4, 5]) await ask(one, { type: 'publish', channel, data })
  t.match(await ask(two, { type: 'subscribe', channel, since: { epoch, offset: 2 } }), { epoch, offset: 5, recovered: true })
  await ask(one, { type: 'publish', channel, data: 6 })
  await until(() => texts(two).length === 4)
  t.same(received(two).map(({ data, offset }) => [data, offset]), [[3, 3], [4, 4], [5, 5], [6, 6]])

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

t.test('subscribe: a pattern receives messages of all matching channels, and a message matched twice once', async t => {
  const registry = await build(t)
  const [one, two] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two')]
  for (const pattern of ['workflows/*/done', 'workflows/**', 'workflows/run-1/*']) {
    t.same({
      ...await ask(one, { type: 'subscribe', channel: pattern }), requestId: ''
    }, { type: 'ack', requestId: '', channel: pattern, recovered: true })
  }
  t.match(
    await ask(one, { type: 'subscribe', channel: 'workflows/**', since: { epoch: 'x', offset: 1 } }), { type: 'ack', recovered: false }
  )
  await ask(one, { type: 'subscribe', channel: 'workflows/run-1/done' })
  for (const [index, name] of ['workflows/run-1/done', 'workflows/run-2/done', 'workflows/a/b/c', 'public/x', 'workflows/z'].entries()) {
    await ask(two, { type: 'publish', channel: name, data: index })
  }
  await until(() => texts(one).length === 4)
  t.same(received(one).map(({ channel, data }) => `${data} ${channel}`), [
    '0 workflows/run-1/done', '1 workflows/run-2/done', '2 workflows/a/b/c', '4 workflows/z'
  ])
  await ask(one, { type: 'unsubscribe', channel: 'workflows/run-1/done' })
  await ask(one, { type: 'unsubscribe', channel: 'workflows/**' })
  await ask(one, { type: 'unsubscribe', channel: 'workflows/never/*' })
  await ask(two, { type: 'publish', channel: 'workflows/a/b/c', data: 5 })
  await ask(two, { type: 'publish', channel: 'workflows/run-1/done', data: 6 })
  await until(() => texts(one).length === 5)
  t.same(texts(one).at(-1), 6)
  await ask(one, { type: 'publish', channel: 'workflows/run-1/done', data: 7 })
  await assertAlive(one)
  t.equal(texts(one).length, 5)
})

t.test('subscribe: a second subscription replaces the options, and delivers nothing twice', async t => {
  const registry = await build(t)
  const [one, two] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two')]
  await ask(two, { type: 'publish', channel, data: 1 })
  const { epoch } = await ask(one, { type: 'subscribe', channel })
  await ask(two, { type: 'publish', channel, data: 2 })
  await nextMessage(one)
  t.match(await ask(one, { type: 'subscribe', channel, includeSenderMetadata: true }), { epoch, offset: 2, recovered: true })
  t.match(
    await ask(one, { type: 'subscribe', channel, since: { epoch, offset: 1 }, includeSenderMetadata: true }), { offset: 2, recovered: true }
  )
  t.match(await ask(one, { type: 'subscribe', channel, since: { epoch, offset: 0 }, includeSenderMetadata: true }), {
    offset: 2, recovered: false
  })
  await ask(two, { type: 'publish', channel, data: 3 })
  t.match(await nextMessage(one), { data: 3, fromMetadata: { agent_id: 'agent-two', role: 'agent' } })
  t.same(texts(one), [2, 3])
})

t.test('publish: messages with one msgId are published once', async t => {
  const registry = await build(t)
  const [one, two] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two')]
  await ask(two, { type: 'subscribe', channel })
  const first = await ask(one, { type: 'publish', channel, data: 1, msgId: 'm' })
  const again = await ask(one, { type: 'publish', channel, data: 1, msgId: 'm' })
  t.notOk('duplicate' in first)
  t.match(again, { type: 'ack', epoch: first.epoch, offset: first.offset, duplicate: true })
  await ask(one, { type: 'publish', channel, data: 2, msgId: 'n' })
  await until(() => texts(two).includes(2))
  t.same(texts(two), [1, 2])
  t.same(undocumentedFrames('agents', one.all), [])
})

t.test('channels: answers and messages of pipelined frames keep their order', async t => {
  const registry = await build(t, { agentsWs: { messagesPerSecond: 10_000, burst: 10_000 } })
  const [one, two] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two')]
  one.send({ type: 'publish', requestId: 'before', channel, data: 'before' })
  one.send({ type: 'subscribe', requestId: 'subscribe', channel })
  for (let n = 0; n < 500; n++) one.send({ type: 'publish', requestId: `p${n}`, channel, data: n, echo: n % 2 === 0 })
  await answerTo(one, 'p499')
  await until(() => texts(one).length === 250)
  t.same(texts(one), Array.from({ length: 250 }, (_, n) => 2 * n))
  t.same(one.all.filter(({ type }) => type === 'ack')
    .map(({ requestId }) => requestId), ['before', 'subscribe', ...Array.from({ length: 500 }, (_, n) => `p${n}`)])
  t.equal((await ask(two, { type: 'history', channel, limit: 1000 })).messages.length, 501)
})

t.test('history: it has the newest messages or those after a position, and states what it truncates', async t => {
  const registry = await build(t, { agentsWs: { maxMessageSize: 200_000 }, messaging: { historyEntries: 20 } })
  const one = await peer(registry, 'agent-one')
  t.match(await ask(one, { type: 'history', channel }), { type: 'history', channel, offset: 0, recovered: true, messages: [] })
  for (let n = 1; n <= 5; n++) await ask(one, { type: 'publish', channel, data: n })
  const all = await ask(one, { type: 'history', channel })
  t.same(all.messages.map(
    ({ data, offset, from, epoch }: Json) => [data, offset, from, epoch]
  ), [1, 2, 3, 4, 5].map(n => [n, n, 'agent-one', all.epoch]))
  t.match(all.messages[0], { fromMetadata: { agent_id: 'agent-one' }, timestamp: Number })
  const data = async (more: object) => (await ask(one, { type: 'history', channel, ...more })).messages.map((message: Json) => message.data)
  t.same(await data({ limit: 2 }), [4, 5])
  t.same(await data({ limit: 2, since: { epoch: all.epoch, offset: 1 } }), [2, 3])
  t.same(await data({ since: { epoch: all.epoch, offset: 5 } }), [])
  for (let n = 1; n <= 12; n++) await ask(one, { type: 'publish', channel: 'agents/big', data: `${n} ${'x'.repeat(150_000)}` })
  const names = (frame: Json) => frame.messages.map((message: Json) => Number(message.data.split(' ')[0]))
  const newest = await ask(one, { type: 'history', channel: 'agents/big' })
  t.ok(Buffer.byteLength(JSON.stringify(newest)) < 1_048_576)
  t.same([newest.truncated, names(newest)], [true, [8, 9, 10, 11, 12]])
  const oldest = await ask(one, { type: 'history', channel: 'agents/big', since: { epoch: newest.epoch, offset: 2 } })
  t.same([oldest.truncated, names(oldest)], [true, [3, 4, 5, 6, 7]])
  for (let n = 6; n <= 30; n++) await ask(one, { type: 'publish', channel, data: n })
  t.match(await ask(one, { type: 'history', channel, limit: 1, since: { epoch: all.epoch, offset: 5 } }), {
    recovered: false, offset: 30, messages: [{ data: 11 }]
  })
  t.same(undocumentedFrames('agents', one.all), [])
})

t.test('channels: invalid frames are refused with a code, and the socket stays open', async t => {
  const registry = await build(t, { agentsWs: { maxMessageSize: 1000 }, messaging: { maxSubscriptions: 2 } })
  const one = await peer(registry, 'agent-one')
  const refused: Array<[code: string, frame: object]> = [
    ['missing_data', { type: 'publish', channel }],
    ['message_too_large', { type: 'publish', channel, data: 'x'.repeat(1001) }],
    ['invalid_frame', { type: 'publish', channel: '', data: 1 }],
    ['invalid_frame', { type: 'publish', channel, data: JSON.parse('['.repeat(70) + ']'.repeat(70)) }],
    ['invalid_frame', { type: 'presence_update', metadata: { deep: JSON.parse('['.repeat(1900) + ']'.repeat(1900)) } }],
    ['invalid_frame', { type: 'publish', channel, data: 1, msgId: '' }],
    ['invalid_frame', { type: 'subscribe', channel, since: { epoch: 'x' } }],
    ['invalid_frame', { type: 'subscribe', channel, since: { epoch: 'x', offset: -1 } }],
    ['invalid_frame', { type: 'history', channel, limit: 1001 }],
    ['invalid_frame', { type: 'presence_update', metadata: 'x' }],
    ['invalid_frame', { type: 'presence_update' }],
    ['invalid_channel', { type: 'publish', channel: 'agents/*', data: 1 }],
    ['invalid_channel', { type: 'publish', channel: 'agents//x', data: 1 }],
    ['invalid_channel', { type: 'history', channel: 'agents/**' }],
    ['invalid_channel', { type: 'presence', channel: 'agents/*' }],
    ['invalid_channel', { type: 'subscribe', channel: 'agents/x*' }],
    ['invalid_channel', { type: 'unsubscribe', channel: 'agents/x y' }],
    ['channel_reserved', { type: 'publish', channel: '$agents', data: 1 }],
    ['channel_reserved', { type: 'history', channel: '_x' }],
    ['channel_reserved', { type: 'subscribe', channel: '$dead/x' }],
    ['action_not_permitted', { type: 'subscribe', channel, group: 'workers' }],
    ['channel_not_authorized', { type: 'subscribe', channel: 'secrets/x' }],
    ['channel_not_authorized', { type: 'subscribe', channel: '**' }],
    ['channel_not_authorized', { type: 'publish', channel: 'secrets/x', data: 1 }],
    ['channel_not_authorized', { type: 'history', channel: 'agent-two/x' }],
    ['channel_not_authorized', { type: 'presence', channel: 'user-ann/x' }]
  ]
  for (const [code, frame] of refused) t.match(await ask(one, frame), { type: 'error', code }, JSON.stringify(frame).slice(0, 90))
  await ask(one, { type: 'subscribe', channel })
  await ask(one, { type: 'subscribe', channel: 'agents/**' })
  for (const name of ['agents/x', 'workflows/*', '$agents']) {
    t.match(await ask(one, { type: 'subscribe', channel: name }), { type: 'error', code: 'channel_limit_exceeded' }, name)
  }
  t.match(await ask(one, { type: 'subscribe', channel }), { type: 'ack' })
  await ask(one, { type: 'unsubscribe', channel: 'agents/**' })
  t.match(await ask(one, { type: 'subscribe', channel: '$agents' }), { type: 'ack' })
  t.equal(one.success.limits.channels, 2)
  await assertAlive(one)
  t.same(undocumentedFrames('agents', one.all), [])
})

t.test('direct messages: an agent named like a user cannot participate', async t => {
  const registry = await build(t)
  const one = await peer(registry, 'user-ann')
  for (const frame of [
    { type: 'subscribe', channel }, { type: 'subscribe', channel: 'agents/*' }, { type: 'subscribe', channel: '$agents' },
    { type: 'publish', channel, data: 1 }, { type: 'history', channel }, { type: 'presence', channel: '$agents' },
    { type: 'presence_update', metadata: {} }
  ]) {
    t.match(await ask(one, frame), { type: 'error', code: 'action_not_permitted' }, frame.type)
  }
  t.match(await ask(one, { type: 'unsubscribe', channel }), { type: 'ack' })
  t.same(await registry.app.agentRegistry.presence('$agents'), [])
})

t.test('channels: subscriptions of a connection end with it', async t => {
  const registry = await build(t)
  const { agentRegistry } = registry.app
  const [one, two] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two')]
  for (const name of [channel, 'agents/**', '$agents']) await ask(one, { type: 'subscribe', channel: name, presence: name === channel })
  one.send({ type: 'subscribe', channel: 'agents/late' })
  one.ws.terminate()
  await until(async () => (await agentRegistry.presence('$agents')).length === 1)
  for (const name of [channel, 'agents/late']) t.same(await agentRegistry.presence(name), [])
  await ask(two, { type: 'publish', channel, data: 1 })
  const again = await peer(registry, 'agent-one')
  await ask(again, { type: 'subscribe', channel })
  t.same(await agentRegistry.presence(channel).then(peers => peers.map(({ peerId }) => peerId)), ['agent-one'])
})

t.test('history: a long one is sent in pieces, and new messages follow it', async t => {
  const registry = await build(t, { agentsWs: { messagesPerSecond: 100_000, burst: 100_000 }, messaging: { historyEntries: 5000 } })
  const [one, two] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two')]
  const filler = 'x'.repeat(3000)
  const { epoch } = await ask(one, { type: 'publish', channel, data: [0, filler] })
  for (let n = 1; n < 900; n++) one.send({ type: 'publish', channel, data: [n, filler] })
  await ask(one, { type: 'publish', channel, data: [900, filler] })
  two.send({ type: 'subscribe', requestId: 's', channel, since: { epoch, offset: 0 } })
  for (let n = 901; n < 1900; n++) one.send({ type: 'publish', channel, data: [n] })
  await ask(one, { type: 'publish', channel, data: [1900] })
  await until(() => texts(two).length >= 1901, 20_000)
  t.same(texts(two).map(([n]) => n), Array.from({ length: 1901 }, (_, n) => n))
  t.match(await answerTo(two, 's'), { recovered: true })
  t.notOk(two.all.some(({ type }) => type === 'channel_gap'))
})

t.test('history: one of several pages is sent completely, also without new messages', async t => {
  const registry = await build(t, { agentsWs: { messagesPerSecond: 100_000, burst: 100_000 } })
  const [one, two] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two')]
  const { epoch } = await ask(one, { type: 'publish', channel, data: 0 })
  for (let n = 1; n < 350; n++) one.send({ type: 'publish', channel, data: n })
  await ask(one, { type: 'publish', channel, data: 350 })
  t.match(await ask(two, { type: 'subscribe', channel, since: { epoch, offset: 0 } }), { recovered: true, offset: 351 })
  await until(() => texts(two).length === 351)
  t.same(texts(two), Array.from({ length: 351 }, (_, n) => n))
  t.match(await ask(two, { type: 'subscribe', channel, since: { epoch, offset: 351 } }), { recovered: true, offset: 351 })
})

t.test('publish: a connection receives its own messages neither live nor from the history', async t => {
  const registry = await build(t)
  const one = await peer(registry, 'agent-one')
  const { epoch } = await ask(one, { type: 'publish', channel, data: 0 })
  for (let n = 1; n < 150; n++) one.send({ type: 'publish', channel, data: n })
  await ask(one, { type: 'publish', channel, data: 'heard', echo: true })
  t.match(await ask(one, { type: 'subscribe', channel, since: { epoch, offset: 0 } }), { recovered: true, offset: 151 })
  t.match(await nextMessage(one), { data: 'heard', offset: 151 })
})

const presenceChannel = 'workflows/run-1'

const presences = (client: Client, channel: string): Json[] =>
  client.all.filter(frame => frame.type === 'presence' && frame.channel === channel)
const ids = (members: Json[]): string[] => members.map(({ peerId }: Json) => peerId).sort()

/** Changes as one text: joins with `+`, leaves with `-`. */
function moves (client: Client, channel: string): string[] {
  const deltas = presences(client, channel).filter(({ snapshot }) => !snapshot)
  return deltas.flatMap(({ joined, left }) => [...ids(joined).map(id => `+${id}`), ...ids(left).map(id => `-${id}`)])
}

t.test('presence: members are sent after the answer, and joins and leaves after that', async t => {
  const registry = await build(t)
  const one = await peer(registry, 'agent-one')
  await ask(one, { type: 'subscribe', channel: presenceChannel, presence: true })
  const snapshot = await one.next('presence')
  const metadata = { role: 'agent', agent_id: 'agent-one', agentName: 'Agent One', agent_type: 'testing', capabilities: ['cap one'] }
  t.same(snapshot, {
    type: 'presence',
    channel: presenceChannel,
    revision: snapshot.revision,
    snapshot: true,
    joined: [
      { peerId: 'agent-one', metadata }
    ],
    left: []
  })
  const two = await peer(registry, 'agent-two', { metadata: { model: 'small-1' } })
  await ask(two, { type: 'subscribe', channel: presenceChannel })
  const joined = await one.next('presence')
  t.match(
    joined, { channel: presenceChannel, joined: [{ peerId: 'agent-two', metadata: { model: 'small-1', agent_id: 'agent-two' } }], left: [] }
  )
  t.equal('snapshot' in joined, false)
  await ask(two, { type: 'unsubscribe', channel: presenceChannel })
  const left = await one.next('presence')
  t.same(left, { type: 'presence', channel: presenceChannel, revision: left.revision, joined: [], left: [{ peerId: 'agent-two' }] })
  t.ok(snapshot.revision < joined.revision && joined.revision < left.revision)
  await ask(two, { type: 'subscribe', channel: presenceChannel })
  await one.next('presence')
  two.ws.terminate()
  t.match(await one.next('presence'), { left: [{ peerId: 'agent-two' }] })
  t.same(presences(two, presenceChannel), [])
  t.same(undocumentedFrames('agents', one.all), [])
})

t.test('presence: a snapshot is sent in a later write than the answer, once per subscription', async t => {
  const registry = await build(t)
  const [one, two] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two')]
  for (let n = 1; n <= 3; n++) {
    const { requestId } = await ask(one, { type: 'subscribe', channel: presenceChannel, presence: true })
    await until(() => presences(one, presenceChannel).length === n)
    t.match(presences(one, presenceChannel).at(-1), { snapshot: true, joined: [{ peerId: 'agent-one' }] })
    t.ok(one.all.findIndex(frame => frame.requestId === requestId) < one.all.indexOf(presences(one, presenceChannel).at(-1)))
  }
  await ask(one, { type: 'subscribe', channel: presenceChannel })
  await ask(two, { type: 'subscribe', channel: presenceChannel })
  await assertAlive(one)
  t.same(moves(one, presenceChannel), [])
})

t.test('presence: a peer joins with its first connection and leaves with its last', async t => {
  const registry = await build(t)
  const watcher = await peer(registry, 'agent-one')
  await ask(watcher, { type: 'subscribe', channel: presenceChannel, presence: true })
  const token = await registry.join('agent-two')
  const sockets = [await registry.agentSocket(token), await registry.agentSocket(token)]
  for (const socket of sockets) await ask(socket, { type: 'subscribe', channel: presenceChannel })
  await ask(sockets[0]!, { type: 'unsubscribe', channel: presenceChannel })
  t.same(ids((await ask(watcher, { type: 'presence', channel: presenceChannel })).joined), ['agent-one', 'agent-two'])
  sockets[1]!.ws.close()
  await until(() => moves(watcher, presenceChannel).length === 2)
  t.same(moves(watcher, presenceChannel), ['+agent-two', '-agent-two'])
})

t.test('presence: quick joins and leaves end with the last state', async t => {
  const registry = await build(t)
  const [watcher, one] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two')]
  await ask(watcher, { type: 'subscribe', channel: presenceChannel, presence: true })
  for (let n = 0; n < 20; n++) {
    one.send({ type: 'subscribe', channel: presenceChannel })
    one.send({ type: 'unsubscribe', channel: presenceChannel })
  }
  await ask(one, { type: 'subscribe', channel: presenceChannel })
  t.same(ids((await ask(watcher, { type: 'presence', channel: presenceChannel })).joined), ['agent-one', 'agent-two'])
  await until(() => moves(watcher, presenceChannel).at(-1) === '+agent-two')
  await ask(one, { type: 'unsubscribe', channel: presenceChannel })
  await until(() => moves(watcher, presenceChannel).at(-1) === '-agent-two')
  const signs = moves(watcher, presenceChannel).map(move => move[0])
  t.ok(signs.every((sign, index) => sign === (index % 2 ? '-' : '+')), signs.join(''))
})

t.test('presence: the tier lists all peers with their attributes', async t => {
  const registry = await build(t)
  const one = await peer(registry, 'agent-one')
  const { token } = await registry.admin()
  const { body: { access_token: minted } } = await registry.post(
    '/tokens/mint', { token, headers: { 'x-client-fingerprint': 'test-fingerprint' }, body: { user_id: 'ann', agent_id: 'ann-agent' } }
  )
  t.match(await ask(one, { type: 'subscribe', channel: '$agents' }), { type: 'ack', channel: '$agents', recovered: true })
  t.match(await one.next('presence'), {
    channel: '$agents',
    snapshot: true,
    joined: [
      { peerId: 'agent-one', agent_id: 'agent-one', status: 'online', metadata: { agentName: 'Agent One' } }
    ],
    left: []
  })
  const admin = await registry.agentSocket(token)
  t.match((await one.next('presence')).joined, [{ peerId: 'user-admin', status: 'online', metadata: { role: 'admin' } }])
  await registry.agentSocket(minted)
  t.notOk('agent_id' in (await nextWhere(one, 'presence', ({ joined }) => joined.length > 0)).joined[0])
  const two = await peer(registry, 'agent-two')
  await one.next('presence')
  two.ws.close()
  t.same((await one.next('presence')).left, [{ peerId: 'agent-two', agent_id: 'agent-two', status: 'offline' }])
  t.same((await registry.app.agentRegistry.presence('$agents')).map(({ peerId }) => peerId).sort(), ['agent-one', 'user-admin', 'user-ann'])
  t.match(await ask(admin, { type: 'presence', channel: '$agents' }), { type: 'presence', snapshot: true, joined: [{}, {}, {}] })
  await ask(one, { type: 'unsubscribe', channel: '$agents' })
  admin.ws.close()
  await until(async () => (await registry.app.agentRegistry.presence('$agents')).length === 2)
  t.same(presences(one, '$agents').at(-1).left.length, 1)
  t.same(undocumentedFrames('agents', one.all), [])
})

t.test('presence: metadata of a peer is shown everywhere, and does not hide server attributes', async t => {
  const registry = await build(t)
  const [watcher, one] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two')]
  for (const name of [presenceChannel, '$agents']) await ask(watcher, { type: 'subscribe', channel: name, presence: true })
  await ask(one, { type: 'subscribe', channel: presenceChannel })
  await until(() => moves(watcher, presenceChannel).length === 1)
  const metadata = { mood: 'busy', role: 'admin', agent_id: 'agent-one', agent_type: 'x', capabilities: [], agentName: 'Root' }
  t.match(await ask(one, { type: 'presence_update', metadata }), { type: 'ack' })
  for (const name of [presenceChannel, '$agents']) {
    const find = () => presences(watcher, name).find(({ joined }) => joined.some((member: Json) => member.metadata.mood))
    await until(find)
    t.match(find().joined, [{
      peerId: 'agent-two',
      metadata: {
        mood: 'busy', role: 'agent', agent_id: 'agent-two', agent_type: 'testing', capabilities: ['cap one'], agentName: 'Agent One'
      }
    }])
  }
  const limited = await ask(one, { type: 'presence_update', metadata: {} })
  t.match(limited, { type: 'error', code: 'rate_limited', retryAfterMs: Number })
  t.match(await ask(one, { type: 'presence_update', metadata: { big: 'x'.repeat(4096) } }), { type: 'error', code: 'message_too_large' })
  t.match(await ask(one, { type: 'presence_update', metadata: Object.fromEntries(Array.from({ length: 51 }, (_, n) => [`k${n}`, n])) }), {
    type: 'error', code: 'invalid_frame'
  })
  await ask(watcher, { type: 'subscribe', channel: 'agents/meta', includeSenderMetadata: true })
  await ask(one, { type: 'publish', channel: 'agents/meta', data: 1 })
  t.match(await nextWhere(watcher, 'message', frame => frame.channel), { data: 1, fromMetadata: { mood: 'busy', agent_id: 'agent-two' } })
  await ask(watcher, { type: 'subscribe', channel: 'agents/meta' })
  await ask(one, { type: 'publish', channel: 'agents/meta', data: 2 })
  t.notOk('fromMetadata' in await nextWhere(watcher, 'message', frame => frame.data === 2))
})

t.test('presence: attributes from the registry are shown too', async t => {
  const registry = await build(t)
  const token = await registry.join('agent-one')
  const one = await registry.agentSocket(token)
  await ask(one, { type: 'subscribe', channel: presenceChannel, presence: true })
  await one.next('presence')
  await registry.post('/agents/agent-one/heartbeat', { token })
  await registry.patch('/agents/agent-one', { token, body: { name: 'Renamed' } })
  t.match((await one.next('presence')).joined, [{ peerId: 'agent-one', metadata: { agentName: 'Renamed' } }])
  t.equal(presences(one, presenceChannel).length, 2)
})

t.test('presence: a set too large for one frame is sent in several', async t => {
  const registry = await build(t, { agentsWs: { maxConnections: 400, intervalMs: 60_000 }, sockets: { maxAgentsPerUpdate: 1 } })
  const capabilities = Array.from({ length: 50 }, (_, n) => `capability ${n} ${'x'.repeat(60)}`)
  const crowd = await Promise.all(Array.from({ length: 120 }, async (_, n) => await peer(registry, `crowd-${n}`, { capabilities })))
  await Promise.all(crowd.map(client => ask(client, { type: 'subscribe', channel: presenceChannel })))
  const one = await peer(registry, 'agent-one')
  await ask(one, { type: 'subscribe', channel: presenceChannel, presence: true })
  const all = () => presences(one, presenceChannel).flatMap(({ joined }) => joined)
  await until(() => all().length >= 121)
  const [first, ...rest] = presences(one, presenceChannel)
  t.match(first, { snapshot: true, truncated: true, total_count: 121 })
  t.ok(rest.length > 0 && rest.every(frame => !('snapshot' in frame)))
  t.same([all().length, new Set(ids(all())).size], [121, 121])
  t.match(await ask(one, { type: 'presence', channel: presenceChannel }), { snapshot: true, truncated: true, total_count: 121 })
  t.same(undocumentedFrames('agents', one.all.filter(frame => frame.type !== 'presence')), [])
})
