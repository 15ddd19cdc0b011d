import t from 'tap'
import { Idempotency } from '../../../src/http/idempotency.js'
import { MemoryKeyValueStore } from '../../../src/storage/memory/kv-store.js'
import { ackOf, connect, granted, inOneProcess } from '../../support/messaging.js'
import { build, sleep, until } from '../../support/harness.js'
import { dataOf, directs, directTests } from '../../support/suites/direct.js'
import { able, answerOf, answerTo, ask, capability, replies, requestTests, worker } from '../../support/suites/requests.js'
import { v1Tests } from '../../support/suites/v1.js'
import { assertAlive, nextWhere, refusalOf } from '../sockets/helper.js'
import { manualClock, refusal } from '../auth/helper.js'

directTests(t, 'one process', inOneProcess)

t.test('direct messages: the examples of the /v1 dialect', async t => {
  const registry = await build(t)
  const [one, two] = [await connect(registry, 'agent-one'), await connect(registry, 'agent-two')]
  one.send({ type: 'message', to: 'agent-two', content: 'hello' })
  const message = await two.next('message')
  t.strictSame(message, { type: 'message', from: 'agent-one', to: 'agent-two', content: 'hello', timestamp: message.timestamp })
  t.strictSame(await ackOf(one, { type: 'message', to: 'agent-two', content: { a: [null] }, requestId: 'r1' }), {
    type: 'ack', requestId: 'r1', offset: 2, delivered: true
  })
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
  for (const [name, frame, code] of refused) {
    t.match(await refusalOf(one, { type: 'send', requestId: 'r', ...frame }), { code, requestId: 'r' }, name)
  }
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
  for (const frame of [
    { type: 'send', to: 'agent-one', data: 1 }, { type: 'inbox' }, { type: 'request', to: 'agent-one', data: 1, timeoutMs: 1000 }
  ]) {
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
  t.match(
    await refusalOf(one, { type: 'send', to: 'agent-two', data: 1, requestId: 'r1' }), { code: 'malformed_message', requestId: undefined }
  )
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

requestTests(t, 'one process', inOneProcess)

t.test('requests: an invalid request is refused and does not count against the limit', async t => {
  const registry = await build(t, { agentsWs: { maxMessageSize: 1000 }, messaging: { maxRequests: 3 } })
  const [one, two] = [await connect(registry, 'agent-one'), await worker(registry, 'agent-two')]
  const refused: Array<[string, object, string]> = [
    ['to nobody', { capability: undefined }, 'invalid_frame'],
    ['to two', { to: 'agent-two' }, 'invalid_frame'],
    ['without data', { data: undefined }, 'missing_data'],
    ['with too large a payload', { data: 'x'.repeat(1000) }, 'message_too_large'],
    ['without time', { timeoutMs: 0 }, 'invalid_frame'],
    ['with too long a timeout', { timeoutMs: 300_001 }, 'invalid_frame'],
    ['of an unknown capability', { capability: 'fly' }, 'no_responders']
  ]
  for (const [name, more, code] of refused) t.match(await refusalOf(one, ask(more)), { code, requestId: 'r1' }, name)
  t.match(await refusalOf(one, ask({ requestId: undefined })), { code: 'invalid_frame' })
  for (const requestId of ['r1', 'r2', 'r3']) one.send(ask({ requestId }))
  const { code, retryAfterMs } = await refusalOf(one, ask({ requestId: 'r4' }))
  t.strictSame([code, retryAfterMs], ['rate_limited', 1000], 'three at a time')
  const { rid } = await two.next('request')
  for (const [more, expected] of [[{}, 'missing_data'], [{ data: 'x'.repeat(1000) }, 'message_too_large']] as const) {
    t.match(await refusalOf(two, { type: 'reply', rid, requestId: 'p', ...more }), { code: expected, requestId: 'p' })
  }
  for (const bad of ['x', `${rid}x`, `nobody.${'x'.repeat(37)}`]) {
    t.match(await refusalOf(two, { type: 'accept', rid: bad, requestId: 'a' }), { code: 'unknown_request', requestId: 'a' })
  }
  await ackOf(two, { type: 'reply', rid, data: 1, requestId: 'p' })
  one.send(ask({ requestId: 'r4' }))
  await until(() => two.all.filter(({ type }) => type === 'request').length === 4)
  const mute = await granted(registry, 'agent-mute', 'subscribe')
  t.match(await refusalOf(mute, ask()), { code: 'action_not_permitted', requestId: 'r1' })
})

t.test('requests: a process accepts only its maximum of open requests', async t => {
  const registry = await build(t, { messaging: { maxRequestsPerProcess: 2 } })
  const [one, two] = [await connect(registry, 'agent-one'), await worker(registry, 'agent-two')]
  const three = await connect(registry, 'agent-three')
  one.send(ask({ requestId: 'r1' }))
  three.send(ask({ requestId: 'r2' }))
  await two.next('request')
  t.match(await refusalOf(one, ask({ requestId: 'r3' })), { code: 'rate_limited' })
})

t.test('requests: an agent gets a request on its newest connection, answers on any, and all learn of a cancellation', async t => {
  const registry = await build(t)
  const one = await connect(registry, 'agent-one')
  const token = await registry.join('agent-two', able)
  const [older, newer] = [await registry.agentSocket(token), await registry.agentSocket(token)]
  one.send(ask())
  const { rid } = await newer.next('request')
  await ackOf(older, { type: 'reply', rid, data: 'from the other', requestId: 'p' })
  t.match(await answerOf(one, 'r1'), { data: 'from the other' })
  one.send(ask({ requestId: 'r2' }))
  await newer.next('request')
  one.send({ type: 'cancel_request', requestId: 'r2' })
  for (const client of [older, newer]) await client.next('request_cancelled')
  t.notOk(older.all.some(({ type }) => type === 'request'))
})

t.test('requests: users and admins receive requests when their token lets them serve', async t => {
  const registry = await build(t)
  const one = await connect(registry, 'agent-one')
  const admin = await registry.agentSocket((await registry.admin()).token)
  one.send(ask({ capability: undefined, to: 'user-admin' }))
  const { rid } = await admin.next('request')
  admin.send({ type: 'reply', rid, data: 'yes' })
  t.match(await answerOf(one, 'r1'), { from: 'user-admin', data: 'yes' })
})

t.test('requests: an agent gains a capability and loses it again', async t => {
  const registry = await build(t)
  const [one, two] = [await connect(registry, 'agent-one'), await connect(registry, 'agent-two')]
  replies(two, 'two')
  const refused = async (requestId: string) => t.match(await answerTo(one, ask({ requestId })), { code: 'no_responders' })
  await refused('r1')
  const token = await registry.join('agent-three', able)
  await refused('r2')
  const three = await registry.agentSocket(token)
  replies(three, 'three')
  t.match(await answerTo(one, ask({ requestId: 'r3' })), { from: 'agent-three' })
  await registry.patch('/agents/agent-three', { token, body: { capabilities: ['other'] } })
  await refused('r4')
  three.send({ type: 'goodbye' })
  await three.closed
  await refused('r5')
})

t.test('requests: a registry that shuts down answers every open request', async t => {
  const registry = await build(t)
  const [one, two] = [await connect(registry, 'agent-one'), await worker(registry, 'agent-two')]
  one.send(ask())
  await two.next('request')
  await registry.app.close()
  t.match(await one.closed, { code: 1001 })
})

t.test('requests: the host sends and requests without an identity or as a given principal', async t => {
  const registry = await build(t)
  const { agentRegistry } = registry.app
  const two = await worker(registry, 'agent-two')
  t.same(await agentRegistry.send('agent-two', { a: 1 }), { offset: 1, delivered: true, duplicate: false })
  t.match(await two.next('direct'), { from: '$host', data: { a: 1 }, fromMetadata: undefined })
  t.same(await agentRegistry.send('agent-two', 2, { from: 'user-ann', msgId: 'm', level: 'delivered' }), {
    offset: 2, delivered: true, duplicate: false
  })
  t.match(await two.next('direct'), { from: 'user-ann', data: 2 })
  t.match(await agentRegistry.send('agent-two', 2, { from: 'user-ann', msgId: 'm' }), { offset: 2, duplicate: true })
  await t.rejects(agentRegistry.send('agent-none', 1), { code: 'AGENT_REGISTRY_PEER_NOT_FOUND', statusCode: 404 })
  await t.rejects(agentRegistry.send('agent-two', undefined), { code: 'AGENT_REGISTRY_MISSING_DATA' })
  const asking = agentRegistry.request({ capability, data: { n: 1 }, timeoutMs: 5000 })
  const { rid, from, data } = await two.next('request')
  t.same([from, data], ['$host', { n: 1 }])
  two.send({ type: 'reply', rid, data: [1, null] })
  t.same(await asking, { from: 'agent-two', data: [1, null] })
  const refused = agentRegistry.request({ to: 'agent-two', data: null, timeoutMs: 5000, from: 'user-ann' })
  const second = await two.next('request')
  t.equal(second.from, 'user-ann')
  two.send({ type: 'reject', rid: second.rid, code: 'busy', message: 'Later' })
  await t.rejects(refused, { code: 'AGENT_REGISTRY_REQUEST_REJECTED', message: 'Later', members: { reason: 'busy' } })
  await t.rejects(
    agentRegistry.request({ capability: 'fly', data: 1, timeoutMs: 100 }), { code: 'AGENT_REGISTRY_NO_RESPONDERS', statusCode: 503 }
  )
  await t.rejects(
    agentRegistry.request({ to: 'agent-two', data: 1, timeoutMs: 50 }), { code: 'AGENT_REGISTRY_DEADLINE_EXCEEDED', statusCode: 504 }
  )
  const controller = new AbortController()
  const aborted = agentRegistry.request({ to: 'agent-two', data: 1, timeoutMs: 5000, signal: controller.signal })
  await until(() => two.all.filter(({ type }) => type === 'request').length === 4)
  controller.abort()
  await t.rejects(aborted, { name: 'AbortError' })
  await two.next('request_cancelled')
  const left = agentRegistry.request({ to: 'agent-two', data: 1, timeoutMs: 5000 })
  const ended = t.rejects(left, { code: /AGENT_REGISTRY_(SHUTTING_DOWN|AGENT_OFFLINE)/ })
  await registry.app.close()
  await ended
})

v1Tests(t, 'one process', inOneProcess)

t.test('idempotency keys: the key of a killed process is released after its timeout', async t => {
  const now = manualClock()
  const idempotency = new Idempotency({ kv: new MemoryKeyValueStore({ clock: now }), now })
  const order = { caller: 'a', key: 'k', request: 'r', withinMs: 10_000 }
  const abandoned = idempotency.once(order, () => new Promise<string>(() => {}))
  t.match(await refusal(() => idempotency.once(order, async () => 'second')), { type: 'request-in-progress' })
  now.advance(70_001)
  t.equal(await idempotency.once(order, async () => 'second'), 'second')
  t.equal(await idempotency.once(order, async () => 'third'), 'second')
  now.advance(3_600_000)
  t.equal(await idempotency.once(order, async () => 'third'), 'third')
  t.type(abandoned, Promise)
})

t.test('idempotency keys: the response is sent also when it cannot be stored', async t => {
  class LosingStore extends MemoryKeyValueStore {
    isAway = false

    override async put (...[entry, onlyIf]: Parameters<MemoryKeyValueStore['put']>): Promise<boolean> {
      if (this.isAway) throw new Error('away')
      return super.put(entry, onlyIf)
    }
  }
  const state = new LosingStore()
  const idempotency = new Idempotency({ kv: state, now: Date.now })
  const answer = await idempotency.once({ caller: 'a', key: 'k', request: 'r', withinMs: 1000 }, async () => {
    state.isAway = true
    return 'done'
  })
  t.equal(answer, 'done')
  state.isAway = false
  await t.rejects(idempotency.once({ caller: 'a', key: 'other', request: 'r', withinMs: 1000 }, async () => {
    state.isAway = true
    throw new Error('failed')
  }), /failed/)
})
