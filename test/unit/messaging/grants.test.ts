import 'fast-check'
import t from 'tap'
import type { Grant } from '../../../src/protocol/schemas/messaging.js'
import { build, type Harness, type Json, until } from '../../support/harness.js'
import { ask, nextMessage, peer, texts } from '../sockets/channels-helper.js'
import { assertAlive, forge } from '../sockets/helper.js'
const channel = 'workflows/run-1'

const withGrants = (token: string, ...grants: Grant[]) => forge(token, { grants })
const codes = async (registry: Harness, token: string, frames: object[]): Promise<string[]> => {
  const client = await registry.agentSocket(token)
  const answers: string[] = []
  for (const frame of frames) {
    const { code, type } = await ask(client, frame)
    answers.push(code ?? type)
  }
  return answers
}

const all = (channel: string): object[] => [
  { type: 'subscribe', channel },
  { type: 'subscribe', channel, presence: true },
  { type: 'publish', channel, data: 1 },
  { type: 'history', channel },
  { type: 'presence', channel }
]

t.test('grants: the grants in a token decide the permitted channels', async t => {
  const registry = await build(t)
  const token = await registry.join('agent-one')
  const [no, not] = ['channel_not_authorized', 'action_not_permitted']
  t.same(await codes(registry, withGrants(token), all(channel)), [no, no, no, no, no])
  t.same(
    await codes(registry, withGrants(token, { channels: ['workflows/*'], allow: ['publish'] }), all(channel)), [not, not, 'ack', not, not]
  )
  t.same(await codes(registry, withGrants(
    token, { channels: ['workflows/**'], allow: ['subscribe'] }, { channels: [channel], allow: ['history'] }
  ), all(channel)), ['ack', not, not, 'history', not])
  t.same(await codes(registry, withGrants(
    token, { channels: ['a/**'], allow: ['subscribe'] }
  ), ['a/*', 'a/**', 'a/b/**', '*/b', '**', 'a'].map(channel => ({ type: 'subscribe', channel }))), ['ack', 'ack', 'ack', no, no, no])
  t.same(await codes(registry, withGrants(
    token, { channels: ['a'], allow: ['subscribe'] }
  ), [{ type: 'subscribe', channel: '$agents' }, { type: 'presence', channel: '$agents' }]), [not, not])
})

t.test('grants: a new token with fewer grants ends the excess subscriptions and reports it', async t => {
  const registry = await build(t)
  const token = await registry.join('agent-one')
  const [one, two] = [await registry.agentSocket(token), await peer(registry, 'agent-two')]
  for (const name of [channel, 'workflows/*', 'agents/a', '$agents']) {
    await ask(one, { type: 'subscribe', channel: name, presence: name === 'agents/a' })
  }
  t.match(
    await ask(one, { type: 'auth', token: withGrants(token, { channels: ['agents/**'], allow: ['subscribe'] }) }), { type: 'auth_success' }
  )
  const ended: Json[] = one.all.filter(({ code }) => code === 'channel_not_authorized')
  t.same(ended.map(frame => frame.channel), [channel, 'workflows/*', '$agents'])
  t.notOk(ended.some(({ requestId }) => requestId))
  for (const name of [channel, 'agents/a']) await ask(two, { type: 'publish', channel: name, data: name })
  t.match(await nextMessage(one), { channel: 'agents/a' })
  const shown = one.all.filter(({ type }) => type === 'presence').length
  await ask(two, { type: 'subscribe', channel: 'agents/a' })
  await ask(one, { type: 'auth', token })
  await ask(one, { type: 'subscribe', channel })
  await ask(two, { type: 'publish', channel, data: 'again' })
  await until(() => texts(one).includes('again'))
  t.equal(one.all.filter(({ type }) => type === 'presence').length, shown)
  t.same(texts(one), ['agents/a', 'again'])
})

t.test('grants: a revoked token receives no more messages', async t => {
  const registry = await build(t)
  const admin = await registry.admin()
  const [one, two] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two')]
  await ask(one, { type: 'subscribe', channel })
  await registry.post('/tokens/revoke', { ...admin, body: { agent_id: 'agent-one' } })
  t.match(await one.closed, { code: 4001 })
  await until(async () => (await registry.app.agentRegistry.presence(channel)).length === 0)
  await ask(two, { type: 'publish', channel, data: 1 })
  t.same(texts(one), [])
})

t.test('grants: the hook of the host runs before each publish and subscribe, and only `true` allows it', async t => {
  const asked: Json[] = []
  const errors: unknown[] = []
  const answer = (channel: string): Json => {
    if (channel.endsWith('/throws')) throw new Error('secret of the host')
    if (channel.endsWith('/hangs')) return new Promise(() => {})
    if (channel.endsWith('/rejects')) return Promise.reject(new Error('secret of the host'))
    return {
      '/yes': true, '/later': Promise.resolve(true), '/lies': 'yes', '/nothing': undefined
    }[channel.slice(channel.lastIndexOf('/'))] ?? false
  }
  const registry = await build(t, {
    limits: { hookTimeoutMs: 100 },
    authorizePublish: context => { asked.push(context); return answer(context.channel) },
    authorizeSubscribe: context => { asked.push(context); return answer(context.channel) }
  }, { server: { logger: { level: 'error', stream: { write: (line: string) => { errors.push(line) } } } } })
  const one = await peer(registry, 'agent-one')
  const wanted: Array<[name: string, answer: string]> = [
    ['yes', 'ack'], ['later', 'ack'], ['no', 'channel_not_authorized'], ['throws', 'channel_not_authorized'],
    ['rejects', 'channel_not_authorized'], ['lies', 'channel_not_authorized'], ['nothing', 'channel_not_authorized'],
    ['hangs', 'backend_error']
  ]
  for (const [name, expected] of wanted) {
    for (const frame of [
      { type: 'subscribe', channel: `agents/${name}` }, { type: 'publish', channel: `agents/${name}`, data: { a: 1 } }
    ]) {
      const { type, code = type, message } = await ask(one, frame)
      t.equal(code, expected, `${frame.type} ${name}`)
      t.notMatch(message ?? '', /secret/)
    }
  }
  t.match(await ask(one, { type: 'subscribe', channel: 'agents/*' }), { code: 'channel_not_authorized' })
  t.match(await ask(one, { type: 'subscribe', channel: '$agents' }), { code: 'channel_not_authorized' })
  t.match(await ask(one, { type: 'publish', channel: 'secrets/yes', data: 1 }), { code: 'channel_not_authorized' })
  t.match(asked[0], { channel: 'agents/yes', peerId: 'agent-one', principal: { type: 'agent', agentId: 'agent-one' } })
  t.match(asked[1], { channel: 'agents/yes', data: '{"a":1}' })
  t.notOk(asked.some(({ channel }) => channel.startsWith('secrets')))
  t.equal(errors.filter(line => /secret of the host/.test(String(line))).length, 4)
  await assertAlive(one)
})

t.test('grants: messages keep their order while the hook is pending', async t => {
  let wait = 60
  const registry = await build(t, {
    authorizePublish: ({ data }) => new Promise(resolve => {
      setTimeout(() =>
        resolve(data !== '3'), wait -= 10)
    })
  })
  const [one, two] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two')]
  await ask(two, { type: 'subscribe', channel })
  for (let n = 0; n < 5; n++) one.send({ type: 'publish', channel, data: n })
  await until(() => texts(two).length === 4)
  t.same(texts(two), [0, 1, 2, 4])
})

t.test('grants: a connection that closes while the hook is pending is not subscribed', async t => {
  let decide = (_yes: boolean) => {}
  const registry = await build(t, { authorizeSubscribe: () => new Promise(resolve => { decide = resolve }) })
  for (const name of [channel, 'workflows/*', '$agents']) {
    const one = await peer(registry, 'agent-one')
    decide = () => {}
    const before = decide
    one.send({ type: 'subscribe', channel: name })
    await until(() => decide !== before)
    one.ws.terminate()
    await until(async () => (await registry.app.agentRegistry.presence('$agents')).length === 0)
    decide(true)
  }
  const two = await peer(registry, 'agent-two')
  await ask(two, { type: 'publish', channel, data: 1 })
  t.same(await registry.app.agentRegistry.presence(channel), [])
})

t.test('host messaging: the host publishes, subscribes and reads presence without a token', async t => {
  const errors: string[] = []
  const registry = await build(
    t, {}, { server: { logger: { level: 'error', stream: { write: (line: string) => { errors.push(line) } } } } }
  )
  const { agentRegistry } = registry.app
  const one = await peer(registry, 'agent-one')
  await ask(one, { type: 'subscribe', channel })
  const delivered: Json[] = []
  const stops = [await agentRegistry.onMessage('workflows/**', message => { delivered.push(message) }), await agentRegistry.onMessage(
    channel, () => { throw new Error('of the listener') }
  ), await agentRegistry.onMessage(channel, async () => { throw new Error('of the listener') })]
  const first = await agentRegistry.publish(channel, { n: 1 })
  t.match(first, { epoch: String, offset: 1, duplicate: false })
  t.match(await nextMessage(one), { from: '$host', data: { n: 1 } })
  await agentRegistry.publish(channel, 2, { from: 'agent-one', msgId: 'm' })
  t.match(await agentRegistry.publish(channel, 2, { from: 'agent-one', msgId: 'm' }), { offset: 2, duplicate: true })
  t.match(await nextMessage(one), { from: 'agent-one', data: 2 })
  await ask(one, { type: 'publish', channel: 'workflows/other', data: 3 })
  await until(() => delivered.length === 3)
  t.match(delivered, [
    { channel, from: '$host', data: { n: 1 }, epoch: first.epoch, offset: 1, timestamp: Number },
    { from: 'agent-one', fromMetadata: { agentName: 'Agent One' }, offset: 2 }, { channel: 'workflows/other', data: 3 }
  ])
  await until(() => errors.length === 4)
  for (const stop of stops) stop()
  stops[0]!()
  await agentRegistry.publish(channel, 4)
  await nextMessage(one)
  t.same([delivered.length, errors.length], [3, 4])
  t.same((await agentRegistry.presence(channel)).map(({ peerId, metadata }) => [peerId, metadata.role]), [['agent-one', 'agent']])
  const refusals: Array<[type: string, call: () => Promise<unknown>]> = [
    ['invalid-channel', () => agentRegistry.publish('a/*', 1)],
    ['channel-reserved', () => agentRegistry.publish('$agents', 1)],
    ['missing-data', () => agentRegistry.publish('a', undefined)],
    ['request-too-large', () => agentRegistry.publish('a', 'x'.repeat(70_000))],
    ['invalid-channel', () => agentRegistry.presence('a//b')],
    ['channel-reserved', () => agentRegistry.onMessage('_a', () => {})],
    ['invalid-channel', () => agentRegistry.onMessage('a/***', () => {})]
  ]
  for (const [type, call] of refusals) t.match(await call().catch((error: unknown) => error), { type }, type)
})

t.test('grants: a user without grants has its own channels, an admin all', async t => {
  const registry = await build(t)
  const admin = await registry.admin()
  const mint = async (role: string) =>
    (await registry.post('/tokens/mint', { ...admin, body: { user_id: 'human', agent_id: 'human', role } })).body.access_token
  const own = 'user-human/inbox'
  t.same(await codes(registry, await mint('user'), [...all(own), ...all(channel)]), [
    'ack', 'ack', 'ack', 'history', 'presence', ...Array(5).fill('channel_not_authorized')
  ])
  t.same(await codes(registry, await mint('admin'), all(channel)), ['ack', 'ack', 'ack', 'history', 'presence'])
})
