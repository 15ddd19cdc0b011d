import t from 'tap'
import { build, sleep, type Client, type Json } from '../support/harness.js'
import { assertAlive, nextWhere, refusalOf, strangeFrames } from '../unit/sockets/helper.js'
import { ackOf, connect, granted, openPairs } from '../support/messaging.js'

/** Waits until somebody is known to be connected. */
async function present (from: Client, to: string): Promise<void> {
  for (;;) {
    from.send({ type: 'send', to, data: 'are you there', requestId: 'probe' })
    if ((await nextWhere(from, 'ack', ({ requestId }) => requestId === 'probe')).delivered) return
    await sleep(10)
  }
}

const dataOf = (frames: readonly Json[]): Json[] => frames.filter(({ type }) => type === 'direct').map(({ data }) => data)

async function directs (client: Client, count: number): Promise<Json[]> {
  const frames: Json[] = []
  while (frames.length < count) frames.push(await client.next('direct'))
  return frames
}

for (const [name, open] of await openPairs(t)) {
  t.test(`direct messages in ${name}: a message reaches every connection of the peer, and the sender gets the outcome`, async t => {
    const [here, there] = await open(t)
    const one = await connect(here, 'agent-one')
    const token = await there.join('agent-two')
    const [two, second] = [await there.agentSocket(token), await there.agentSocket(token, { observe: true })]
    await present(one, 'agent-two')
    await Promise.all([directs(two, 1), directs(second, 1)])
    one.send({ type: 'send', to: 'agent-two', data: { text: 'hello' }, requestId: 'r1' })
    const { offset } = await two.next('direct')
    t.strictSame(await one.next('ack'), { type: 'ack', requestId: 'r1', offset, delivered: true })
    for (const level of ['accepted', 'delivered'] as const) {
      const [ack, direct, again] = [await ackOf(one, { type: 'send', to: 'agent-two', data: [level], level, requestId: level }), await two.next('direct'), await nextWhere(second, 'direct', ({ data }) => data[0] === level)]
      t.strictSame(ack, { type: 'ack', requestId: level, offset: direct.offset, delivered: true })
      t.match(direct, { type: 'direct', from: 'agent-one', data: [level], fromMetadata: { agent_id: 'agent-one', role: 'agent', agentName: 'Agent One' }, epoch: String, timestamp: Number })
      t.strictSame(again, direct)
      t.ok(Math.abs(direct.timestamp - Date.now() / 1000) < 60)
    }
    for (const { all } of [one, two, second]) t.strictSame(strangeFrames('agents', all), [])
  })

  t.test(`direct messages in ${name}: a message to a registered peer that is offline waits in its inbox`, async t => {
    const [here, there] = await open(t)
    const one = await connect(here, 'agent-one')
    const token = await here.join('agent-two')
    const sent = []
    for (const data of [1, 2, 3]) sent.push(await ackOf(one, { type: 'send', to: 'agent-two', data, requestId: `r${data}`, ...(data === 3 && { level: 'delivered' }) }))
    t.strictSame(sent.map(({ delivered }) => delivered), [false, false, false])
    const two = await there.agentSocket(token)
    await present(one, 'agent-two')
    await nextWhere(two, 'direct', ({ data }) => data === 'are you there')
    t.notOk(dataOf(two.all).includes(3), 'a client without a position receives new messages')
    t.match(await ackOf(two, { type: 'inbox', requestId: 'i1' }), { recovered: true, epoch: String })
    const frames = await directs(two, 3)
    t.strictSame(frames.map(({ data }) => data), [1, 2, 3], 'live messages are not sent again')
    t.strictSame(frames.map(({ offset }) => offset), sent.map(({ offset }) => offset))
    const again = await there.agentSocket(token)
    const { epoch, offset } = frames[1]
    const ack = await ackOf(again, { type: 'inbox', since: { epoch, offset }, requestId: 'i2' })
    t.strictSame(ack, { type: 'ack', requestId: 'i2', epoch, offset: ack.offset, recovered: true })
    t.strictSame((await again.next('direct')).data, 3)
    one.send({ type: 'send', to: 'agent-two', data: 'live', requestId: 'live' })
    t.equal((await nextWhere(again, 'direct', ({ data }) => data === 'live')).offset, ack.offset + 1)
    const other = await there.agentSocket(token)
    t.match(await ackOf(other, { type: 'inbox', since: { epoch: 'another', offset: 1 }, requestId: 'i3' }), { recovered: false, epoch })
    await nextWhere(other, 'direct', ({ data }) => data === 'live')
    t.strictSame(dataOf(other.all).filter(data => data !== 'are you there'), [1, 2, 3, 'live'])
    for (const { all } of [one, two, again, other]) t.strictSame(strangeFrames('agents', all), [])
  })

  t.test(`direct messages in ${name}: messages with one msgId from one sender are one message`, async t => {
    const [here, there] = await open(t)
    const [one, two, three] = [await connect(here, 'agent-one'), await connect(there, 'agent-two'), await connect(there, 'agent-three')]
    await present(one, 'agent-two')
    await directs(two, 1)
    const frame = { type: 'send', to: 'agent-two', data: 'once', msgId: 'm1' }
    const first = await ackOf(one, { ...frame, requestId: 'r1' })
    const { offset } = await two.next('direct')
    t.strictSame(first, { type: 'ack', requestId: 'r1', offset, delivered: true })
    t.strictSame(await ackOf(one, { ...frame, requestId: 'r2' }), { type: 'ack', requestId: 'r2', offset, delivered: true, duplicate: true })
    t.strictSame(await ackOf(one, { ...frame, level: 'delivered', requestId: 'r3' }), { type: 'ack', requestId: 'r3', offset, delivered: false, duplicate: true },
      'this call delivered to no connection')
    await ackOf(three, { ...frame, requestId: 'r1' })
    t.match(await two.next('direct'), { from: 'agent-three', offset: offset + 1 }, 'msgIds of another sender are independent')
    await assertAlive(two)
    t.equal(dataOf(two.all).filter(data => data === 'once').length, 2)
  })

  t.test(`direct messages in ${name}: a broadcast with the grant reaches all connected peers in order`, async t => {
    const [here, there] = await open(t)
    const speaker = await granted(here, 'agent-speaker', 'broadcast', 'send')
    const others = [await connect(here, 'agent-one'), await connect(there, 'agent-two')]
    await here.join('agent-away')
    await present(speaker, 'agent-two')
    for (let n = 0; n < 50; n++) speaker.send({ type: 'message', content: n })
    await ackOf(speaker, { type: 'message', content: 'last', to: null, requestId: 'r1' })
    for (const client of others) {
      const last = await nextWhere(client, 'message', ({ content }) => content === 'last')
      t.strictSame(Object.keys(last), ['type', 'from', 'to', 'content', 'timestamp'])
      t.match(last, { from: 'agent-speaker', to: null })
      t.strictSame(client.all.filter(({ type }) => type === 'message').map(({ content }) => content), [...Array.from({ length: 50 }, (_, n) => n), 'last'])
      t.strictSame(strangeFrames('agents', client.all), [])
    }
    t.notOk(speaker.all.some(({ type }) => type === 'message'), 'but not the sender')
    t.match(await refusalOf(others[0]!, { type: 'message', content: 'x', requestId: 'r' }), { code: 'action_not_permitted', requestId: 'r' })
  })
}

t.test('direct messages: the examples of the /v1 dialect', async t => {
  const registry = await build(t)
  const [one, two] = [await connect(registry, 'agent-one'), await connect(registry, 'agent-two')]
  one.send({ type: 'message', to: 'agent-two', content: 'hello' })
  const message = await two.next('message')
  t.strictSame(message, { type: 'message', from: 'agent-one', to: 'agent-two', content: 'hello', timestamp: message.timestamp })
  t.strictSame(await ackOf(one, { type: 'message', to: 'agent-two', content: { a: [null] }, requestId: 'r1' }), { type: 'ack', requestId: 'r1', offset: 2, delivered: true })
  t.same((await two.next('message')).content, { a: [null] })
  t.equal(one.all.filter(({ type }) => type === 'ack').length, 1, '/v1 clients request no ack')
  await registry.join('agent-away')
  t.match(await ackOf(one, { type: 'message', to: 'agent-away', content: 'kept', requestId: 'r2' }), { delivered: false })
  const away = await connect(registry, 'agent-away')
  away.send({ type: 'inbox' })
  t.match(await away.next('ack'), { type: 'ack', recovered: true })
  t.match(await away.next('message'), { from: 'agent-one', content: 'kept' })
})

t.test('direct messages: an invalid message is refused and not stored', async t => {
  const registry = await build(t, { agentsWs: { maxMessageSize: 1000 } })
  const one = await connect(registry, 'agent-one')
  const two = await connect(registry, 'agent-two')
  const refused: Array<[string, object, string]> = [
    ['to nobody', { to: 'agent-none', data: 1 }, 'peer_not_found'],
    ['to an offline user', { to: 'user-ann', data: 1 }, 'peer_not_found'],
    ['nothing', { to: 'agent-two' }, 'missing_data'],
    ['too much', { to: 'agent-two', data: 'x'.repeat(1000) }, 'message_too_large'],
    ['too many bytes', { to: 'agent-two', data: 'é'.repeat(500) }, 'message_too_large'],
    ['without a receiver', { data: 1 }, 'invalid_frame'],
    ['with another level', { to: 'agent-two', data: 1, level: 'read' }, 'invalid_frame'],
    ['without a message type', { to: 'agent-two', data: 1, msgId: '' }, 'invalid_frame']
  ]
  for (const [name, frame, code] of refused) t.match(await refusalOf(one, { type: 'send', requestId: 'r', ...frame }), { code, requestId: 'r' }, name)
  t.match(await refusalOf(one, { type: 'message', to: 'agent-two', requestId: 'r' }), { code: 'missing_data', requestId: 'r' })
  t.match(await refusalOf(one, { type: 'inbox', since: { epoch: 'e' }, requestId: 'r' }), { code: 'invalid_frame' })
  t.match(await ackOf(one, { type: 'send', to: 'agent-two', data: null, requestId: 'null' }), { offset: 1 })
  t.equal((await two.next('direct')).data, null)
  const mute = await granted(registry, 'agent-mute', 'subscribe')
  t.match(await refusalOf(mute, { type: 'send', to: 'agent-two', data: 1, requestId: 'r' }), { code: 'action_not_permitted' })
  t.match(await ackOf(one, { type: 'send', to: 'agent-mute', data: 1, requestId: 'r' }), { delivered: true }, 'a valid message is sent')
})

t.test('direct messages: an agent named like a user cannot participate', async t => {
  const registry = await build(t)
  const one = await connect(registry, 'agent-one')
  const impostor = await connect(registry, 'user-admin')
  for (const frame of [{ type: 'send', to: 'agent-one', data: 1 }, { type: 'inbox' }, { type: 'request', to: 'agent-one', data: 1, timeoutMs: 1000 }]) {
    t.match(await refusalOf(impostor, { ...frame, requestId: 'r' }), { code: 'action_not_permitted', requestId: 'r' })
  }
  t.match(await refusalOf(one, { type: 'send', to: 'user-admin', data: 1, requestId: 'r' }), { code: 'peer_not_found' },
    'and is not addressable')
  const admin = await registry.agentSocket((await registry.admin()).token)
  t.match(await ackOf(one, { type: 'send', to: 'user-admin', data: 1, requestId: 'r' }), { delivered: true })
  t.match(await admin.next('direct'), { from: 'agent-one', data: 1 })
  await assertAlive(impostor)
  t.strictSame(dataOf(impostor.all), [])
})

t.test('requests: a requestId in use is refused, and other frames are handled', async t => {
  const registry = await build(t)
  const [one, two] = [await connect(registry, 'agent-one'), await connect(registry, 'agent-two')]
  one.send({ type: 'request', to: 'agent-two', data: 1, timeoutMs: 5000, requestId: 'r1' })
  const { rid } = await two.next('request')
  t.match(await refusalOf(one, { type: 'send', to: 'agent-two', data: 1, requestId: 'r1' }), { code: 'malformed_message', requestId: undefined })
  two.send({ type: 'reply', rid, data: 2 })
  t.match(await one.next('response'), { requestId: 'r1' })
  t.match(await ackOf(one, { type: 'send', to: 'agent-two', data: 1, requestId: 'r1' }), { delivered: true })
})

t.test('direct messages: five hundred concurrent messages arrive in order, each with its ack', async t => {
  const registry = await build(t, { agentsWs: { burst: 1000, messagesPerSecond: 1000 } })
  const [one, two] = [await connect(registry, 'agent-one'), await connect(registry, 'agent-two')]
  for (let n = 0; n < 500; n++) one.send({ type: 'send', to: 'agent-two', data: n, requestId: `r${n}` })
  const frames = await directs(two, 500)
  t.strictSame(frames.map(({ data }) => data), Array.from({ length: 500 }, (_, n) => n))
  await nextWhere(one, 'ack', ({ requestId }) => requestId === 'r499')
  t.strictSame(one.all.filter(({ type }) => type === 'ack').map(({ offset }) => offset), frames.map(({ offset }) => offset))
})

t.test('direct messages: missed messages are replayed once in order while new ones arrive', async t => {
  const registry = await build(t, { agentsWs: { burst: 5000, messagesPerSecond: 5000 } })
  const one = await connect(registry, 'agent-one')
  const token = await registry.join('agent-two')
  const say = (n: number) => { one.send({ type: 'send', to: 'agent-two', data: { n, text: 'x'.repeat(4000) }, requestId: `s${n}` }) }
  for (let n = 0; n < 300; n++) say(n)
  await nextWhere(one, 'ack', ({ offset }) => offset === 300)
  const two = await registry.agentSocket(token)
  two.send({ type: 'inbox', requestId: 'i' })
  for (let n = 300; n < 500; n++) {
    say(n)
    if (n % 20 === 0) await sleep(1)
  }
  const frames = await directs(two, 500)
  t.strictSame(frames.map(({ data }) => data.n), Array.from({ length: 500 }, (_, n) => n))
  t.strictSame(frames.map(({ offset }) => offset), Array.from({ length: 500 }, (_, n) => n + 1))
  two.send({ type: 'inbox', requestId: 'again' })
  await nextWhere(two, 'ack', ({ requestId }) => requestId === 'again')
  await assertAlive(two)
  t.equal(dataOf(two.all).length, 500, 'a second replay is empty')
})

t.test('direct messages: the inbox of a removed agent is not delivered to a new agent with its id', async t => {
  const registry = await build(t)
  const one = await connect(registry, 'agent-one')
  await registry.join('agent-two')
  await ackOf(one, { type: 'send', to: 'agent-two', data: 'for the first', requestId: 'r1' })
  await registry.app.agentRegistry.unregister('agent-two')
  t.match(await refusalOf(one, { type: 'send', to: 'agent-two', data: 'lost', requestId: 'r2' }), { code: 'peer_not_found' })
  await sleep(5)
  const token = await registry.join('agent-two')
  await ackOf(one, { type: 'send', to: 'agent-two', data: 'for the second', requestId: 'r3' })
  const two = await registry.agentSocket(token)
  two.send({ type: 'inbox' })
  t.equal((await two.next('direct')).data, 'for the second')
  await assertAlive(two)
  t.strictSame(dataOf(two.all), ['for the second'])
})
