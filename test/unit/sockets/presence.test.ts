import t from 'tap'
import { build, until, type Client, type Json } from '../../support/harness.js'
import { ask, peer } from './channels-helper.js'
import { assertAlive, nextWhere, strangeFrames } from './helper.js'

const channel = 'workflows/run-1'

const presences = (client: Client, channel: string): Json[] => client.all.filter(frame => frame.type === 'presence' && frame.channel === channel)
const ids = (members: Json[]): string[] => members.map(({ peerId }: Json) => peerId).sort()

/** Changes as one text: who came with `+`, who went with `-`. */
function moves (client: Client, channel: string): string[] {
  const deltas = presences(client, channel).filter(({ snapshot }) => !snapshot)
  return deltas.flatMap(({ joined, left }) => [...ids(joined).map(id => `+${id}`), ...ids(left).map(id => `-${id}`)])
}

t.test('who is subscribed is shown after the answer, and who comes and goes after that', async t => {
  const registry = await build(t)
  const one = await peer(registry, 'agent-one')
  await ask(one, { type: 'subscribe', channel, presence: true })
  const snapshot = await one.next('presence')
  const metadata = { role: 'agent', agent_id: 'agent-one', agentName: 'Agent One', agent_type: 'testing', capabilities: ['cap one'] }
  t.same(snapshot, { type: 'presence', channel, revision: snapshot.revision, snapshot: true, joined: [{ peerId: 'agent-one', metadata }], left: [] })
  const two = await peer(registry, 'agent-two', { metadata: { model: 'small-1' } })
  await ask(two, { type: 'subscribe', channel })
  const joined = await one.next('presence')
  t.match(joined, { channel, joined: [{ peerId: 'agent-two', metadata: { model: 'small-1', agent_id: 'agent-two' } }], left: [] })
  t.equal('snapshot' in joined, false)
  await ask(two, { type: 'unsubscribe', channel })
  const left = await one.next('presence')
  t.same(left, { type: 'presence', channel, revision: left.revision, joined: [], left: [{ peerId: 'agent-two' }] })
  t.ok(snapshot.revision < joined.revision && joined.revision < left.revision)
  await ask(two, { type: 'subscribe', channel })
  await one.next('presence')
  two.ws.terminate()
  t.match(await one.next('presence'), { left: [{ peerId: 'agent-two' }] })
  t.same(presences(two, channel), [])
  t.same(strangeFrames('agents', one.all), [])
})

t.test('a snapshot comes in a later write than the answer, once, and anew with each subscription', async t => {
  const registry = await build(t)
  const [one, two] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two')]
  for (let n = 1; n <= 3; n++) {
    const { requestId } = await ask(one, { type: 'subscribe', channel, presence: true })
    await until(() => presences(one, channel).length === n)
    t.match(presences(one, channel).at(-1), { snapshot: true, joined: [{ peerId: 'agent-one' }] })
    t.ok(one.all.findIndex(frame => frame.requestId === requestId) < one.all.indexOf(presences(one, channel).at(-1)))
  }
  await ask(one, { type: 'subscribe', channel })
  await ask(two, { type: 'subscribe', channel })
  await assertAlive(one)
  t.same(moves(one, channel), [])
})

t.test('a peer joins with its first connection and leaves with its last', async t => {
  const registry = await build(t)
  const watcher = await peer(registry, 'agent-one')
  await ask(watcher, { type: 'subscribe', channel, presence: true })
  const token = await registry.join('agent-two')
  const sockets = [await registry.agentSocket(token), await registry.agentSocket(token)]
  for (const socket of sockets) await ask(socket, { type: 'subscribe', channel })
  await ask(sockets[0]!, { type: 'unsubscribe', channel })
  t.same(ids((await ask(watcher, { type: 'presence', channel })).joined), ['agent-one', 'agent-two'])
  sockets[1]!.ws.close()
  await until(() => moves(watcher, channel).length === 2)
  t.same(moves(watcher, channel), ['+agent-two', '-agent-two'])
})

t.test('who comes and goes in haste is where it was last', async t => {
  const registry = await build(t)
  const [watcher, one] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two')]
  await ask(watcher, { type: 'subscribe', channel, presence: true })
  for (let n = 0; n < 20; n++) {
    one.send({ type: 'subscribe', channel })
    one.send({ type: 'unsubscribe', channel })
  }
  await ask(one, { type: 'subscribe', channel })
  t.same(ids((await ask(watcher, { type: 'presence', channel })).joined), ['agent-one', 'agent-two'])
  await until(() => moves(watcher, channel).at(-1) === '+agent-two')
  await ask(one, { type: 'unsubscribe', channel })
  await until(() => moves(watcher, channel).at(-1) === '-agent-two')
  const signs = moves(watcher, channel).map(move => move[0])
  t.ok(signs.every((sign, index) => sign === (index % 2 ? '-' : '+')), signs.join(''))
})

t.test('the presence of the tier has everybody, with what they are', async t => {
  const registry = await build(t)
  const one = await peer(registry, 'agent-one')
  const { token } = await registry.admin()
  const { body: { access_token: minted } } = await registry.post('/tokens/mint', { token, headers: { 'x-client-fingerprint': 'test-fingerprint' }, body: { user_id: 'ann', agent_id: 'ann-agent' } })
  t.match(await ask(one, { type: 'subscribe', channel: '$agents' }), { type: 'ack', channel: '$agents', recovered: true })
  t.match(await one.next('presence'), { channel: '$agents', snapshot: true, joined: [{ peerId: 'agent-one', agent_id: 'agent-one', status: 'online', metadata: { agentName: 'Agent One' } }], left: [] })
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
  t.same(strangeFrames('agents', one.all), [])
})

t.test('what a peer says of itself is shown everywhere, and never hides what the server knows', async t => {
  const registry = await build(t)
  const [watcher, one] = [await peer(registry, 'agent-one'), await peer(registry, 'agent-two')]
  for (const name of [channel, '$agents']) await ask(watcher, { type: 'subscribe', channel: name, presence: true })
  await ask(one, { type: 'subscribe', channel })
  await until(() => moves(watcher, channel).length === 1)
  const metadata = { mood: 'busy', role: 'admin', agent_id: 'agent-one', agent_type: 'x', capabilities: [], agentName: 'Root' }
  t.match(await ask(one, { type: 'presence_update', metadata }), { type: 'ack' })
  for (const name of [channel, '$agents']) {
    const find = () => presences(watcher, name).find(({ joined }) => joined.some((member: Json) => member.metadata.mood))
    await until(find)
    t.match(find().joined, [{ peerId: 'agent-two', metadata: { mood: 'busy', role: 'agent', agent_id: 'agent-two', agent_type: 'testing', capabilities: ['cap one'], agentName: 'Agent One' } }])
  }
  const limited = await ask(one, { type: 'presence_update', metadata: {} })
  t.match(limited, { type: 'error', code: 'rate_limited', retryAfterMs: Number })
  t.match(await ask(one, { type: 'presence_update', metadata: { big: 'x'.repeat(4096) } }), { type: 'error', code: 'message_too_large' })
  t.match(await ask(one, { type: 'presence_update', metadata: Object.fromEntries(Array.from({ length: 51 }, (_, n) => [`k${n}`, n])) }), { type: 'error', code: 'invalid_frame' })
  await ask(watcher, { type: 'subscribe', channel: 'agents/meta', includeSenderMetadata: true })
  await ask(one, { type: 'publish', channel: 'agents/meta', data: 1 })
  t.match(await nextWhere(watcher, 'message', frame => frame.channel), { data: 1, fromMetadata: { mood: 'busy', agent_id: 'agent-two' } })
  await ask(watcher, { type: 'subscribe', channel: 'agents/meta' })
  await ask(one, { type: 'publish', channel: 'agents/meta', data: 2 })
  t.notOk('fromMetadata' in await nextWhere(watcher, 'message', frame => frame.data === 2))
})

t.test('what the registry learns of an agent is shown too', async t => {
  const registry = await build(t)
  const token = await registry.join('agent-one')
  const one = await registry.agentSocket(token)
  await ask(one, { type: 'subscribe', channel, presence: true })
  await one.next('presence')
  await registry.post('/agents/agent-one/heartbeat', { token })
  await registry.patch('/agents/agent-one', { token, body: { name: 'Renamed' } })
  t.match((await one.next('presence')).joined, [{ peerId: 'agent-one', metadata: { agentName: 'Renamed' } }])
  t.equal(presences(one, channel).length, 2)
})

t.test('a crowd that one frame does not hold comes in several', async t => {
  const registry = await build(t, { agentsWs: { maxConnections: 400, intervalMs: 60_000 }, sockets: { maxAgentsPerUpdate: 1 } })
  const capabilities = Array.from({ length: 50 }, (_, n) => `capability ${n} ${'x'.repeat(60)}`)
  const crowd = await Promise.all(Array.from({ length: 120 }, async (_, n) => await peer(registry, `crowd-${n}`, { capabilities })))
  await Promise.all(crowd.map(client => ask(client, { type: 'subscribe', channel })))
  const one = await peer(registry, 'agent-one')
  await ask(one, { type: 'subscribe', channel, presence: true })
  const all = () => presences(one, channel).flatMap(({ joined }) => joined)
  await until(() => all().length >= 121)
  const [first, ...rest] = presences(one, channel)
  t.match(first, { snapshot: true, truncated: true, total_count: 121 })
  t.ok(rest.length > 0 && rest.every(frame => !('snapshot' in frame)))
  t.same([all().length, new Set(ids(all())).size], [121, 121])
  t.match(await ask(one, { type: 'presence', channel }), { snapshot: true, truncated: true, total_count: 121 })
  t.same(strangeFrames('agents', one.all.filter(frame => frame.type !== 'presence')), [])
})
