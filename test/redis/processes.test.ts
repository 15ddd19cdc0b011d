import t, { type Test } from 'tap'
import type { AgentRegistryOptions } from '../../src/index.js'
import { inTwoProcesses, newNamespace } from '../support/redis.js'
import { directTests } from '../support/suites/direct.js'
import { requestTests } from '../support/suites/requests.js'
import { v1Tests } from '../support/suites/v1.js'
import { sharedRedis } from '../support/redis-server.js'
import {
  build, type Client, fingerprint, type Harness, type Json, keys, password, registration, secret, sleep, until
} from '../support/harness.js'
import { RedisProxy } from '../support/redis-proxy.js'
import { ask } from '../unit/sockets/channels-helper.js'
import { channel, RoamingSubscriber } from '../support/roaming-subscriber.js'

const server = await sharedRedis(t)
const pair = inTwoProcesses(server)

directTests(t, 'two processes', pair)
requestTests(t, 'two processes', pair)
v1Tests(t, 'two processes', pair)

/** An authenticated dashboard socket. */
async function dashboard (registry: Harness, token: string): Promise<Client> {
  const client = registry.socket('/dashboard/ws')
  await client.opened
  client.send({ type: 'auth', token, fingerprint })
  await client.next('monitoring')
  return client
}

t.test('two processes: a login at one process is valid at the other at once, and a logout ends it at both', async t => {
  const [one, two] = await pair(t)
  const admin = await one.admin()
  t.equal((await two.get('/auth/session_status', admin)).status, 200)
  const sockets = [await dashboard(one, admin.token), await dashboard(two, admin.token)]
  t.equal((await two.post('/auth/logout', admin)).status, 200)
  for (const { closed } of sockets) t.match(await closed, { code: 4001, reason: 'Session ended' })
  for (const registry of [one, two]) t.equal((await registry.get('/auth/session_status', admin)).status, 401)
})

t.test('two processes: a PIN set at one process is required at the other', async t => {
  const [one, two] = await pair(t)
  const admin = await one.admin()
  const answers = await Promise.all([one, two].map(registry => registry.post('/auth/set_pin', { ...admin, body: { pin: '7391' } })))
  t.same(answers.map(({ status }) => status).sort(), [200, 400])
  await until(async () => (await two.get('/auth/pin_status', admin)).body.pin_set)
  await one.join()
  t.equal((await two.post('/tokens/revoke', { ...admin, body: { agent_id: 'agent-one' } })).status, 400)
})

t.test('two processes: revoking a token or removing an agent at one process closes its sockets at the other', async t => {
  const [one, two] = await pair(t)
  const admin = await two.admin()
  const [first, second] = [await one.agent('agent-one'), await one.agent('agent-two')]
  await until(async () => (await two.get('/agents/agent-two', { token: second })).status === 200)
  const sockets = [await one.agentSocket(first), await two.agentSocket(second)]
  t.equal((await two.post('/tokens/revoke', { ...admin, body: { token: first } })).status, 200)
  t.match(await sockets[0]!.closed, { code: 4001 })
  t.equal((await one.get('/agents/agent-one', { token: first })).status, 401)
  t.equal((await one.delete('/agents/agent-two', { token: second })).status, 200)
  t.match(await sockets[1]!.closed, { code: 4001 })
  t.equal((await two.get('/agents/agent-two', { token: second })).status, 401)
})

async function isAccepted (registry: Harness): Promise<boolean> {
  const client = registry.socket('/public/ws')
  const isOpen = await Promise.race([client.refused.then(() => false), client.opened.then(() => true)])
  client.close()
  return isOpen
}

t.test('two processes: a fleet-wide limit counts the sockets of both', async t => {
  const [one, two] = await pair(t, { publicWs: { maxFleetConnections: 3 } })
  const sockets = [one.socket('/public/ws'), one.socket('/public/ws'), two.socket('/public/ws')]
  for (const socket of sockets) await socket.next('welcome')
  // Each process receives the sessions of the other one slightly later.
  for (const registry of [one, two]) await until(async () => !await isAccepted(registry))
  t.equal((await two.socket('/public/ws').refused).status, 503)
  sockets[0]!.close()
  await until(() => isAccepted(two))
})

t.test('two processes: a ticket issued by one process opens one socket at the other', async t => {
  const [one, two] = await pair(t)
  const token = await one.agent()
  const { body: { ticket } } = await one.post('/ws-tickets', { token })
  const client = two.socket(`/agents/ws?ticket=${ticket}`)
  t.match(await client.next('auth_success'), { agent_id: 'agent-one' })
  t.match(await one.socket(`/agents/ws?ticket=${ticket}`).closed, { code: 4001 })
})

t.test('two processes: a repeated registration at the other process gets the same response, a different one is refused', async t => {
  const [one, two] = await pair(t)
  const token = await one.tempToken()
  const first = await one.post('/agents/register', { token, body: registration() })
  const again = await two.post('/agents/register', { token, body: registration() })
  t.same([first.status, again.status], [200, 200])
  const { access_token: given, heartbeat_every_ms: _, ...answer } = again.body
  t.match(first.body, answer)
  t.equal((await two.get('/agents/agent-one', { token: given })).status, 200)
  t.match((await two.post('/agents/register', { token, body: registration('agent-one', { name: 'Another' }) })).body, {
    detail: 'This temporary token has been used'
  })
})

t.test('two processes: a repeated removal with a temporary token at the other process gets the same response', async t => {
  const [one, two] = await pair(t)
  await one.register()
  const token = await one.tempToken()
  t.match(await one.delete('/agents/agent-one', { token }), { status: 200 })
  t.match(await two.delete('/agents/agent-one', { token }), { status: 200 })
  await one.register('agent-two', {}, keys.other)
  t.match(
    await two.delete('/agents/agent-two', { token: await two.tempToken('agent-two') }), { status: 403 }, 'an agent of another key stays'
  )
})

t.test('two processes: failed attempts are counted across both processes', async t => {
  const [one, two] = await pair(t, { attempts: { burst: 4, windowMs: 900_000 } })
  const headers = { 'x-client-fingerprint': fingerprint }
  const login = (registry: Harness, text: string) => registry.post('/auth/login', { headers, body: { username: 'admin', password: text } })
  for (const registry of [one, two, one, two]) t.equal((await login(registry, 'wrong')).status, 401)
  for (const registry of [one, two]) t.equal((await login(registry, password)).status, 429)
  const request = (registry: Harness, key: string) =>
    registry.post('/auth/agent/request_temp_token', { body: { agent_id: 'agent-one', agent_type: 'testing', agent_key: key } })
  for (const registry of [one, two, one, two]) t.equal((await request(registry, 'a wrong agent key')).status, 401)
  t.equal((await request(one, 'a wrong agent key')).status, 429)
  t.equal((await request(one, keys.plain)).status, 429)
})

t.test('two processes: processes without a secret share one, and agents keep their keys when it rotates', async t => {
  const namespace = newNamespace()
  const [one, two] = await pair(t, { namespace, jwt: {} })
  const token = await one.agent()
  t.equal((await two.get('/agents/agent-one', { token })).status, 200)
  const fresh = await build(t, { storage: 'redis', namespace, redis: { client: server.client }, jwt: { secret: [`another ${secret}`] } })
  t.equal((await fresh.get('/agents/agent-one', { token })).status, 401)
  t.equal((await fresh.delete('/agents/agent-one', { token: await fresh.tempToken() })).status, 200)
})

t.test('two processes: the log names the Redis in use', async t => {
  const [one] = await pair(t)
  const admin = await one.admin()
  t.match((await one.get('/health')).body, {
    status: 'healthy', storage: { redis: 'connected' }, features: { redis_storage: true }, performance: { redis_connected: true }
  })
  t.match((await one.get('/health/redis', admin)).body, { status: 'healthy', redis: 'connected' })
  t.match((await one.get('/health/detailed', admin)).body, { detailed: { database: { type: 'redis' } } })
  t.match((await one.get('/agents/stats', admin)).body, {
    registry_statistics: { redis_connected: true }, features: { redis_storage_enabled: true }
  })
  t.match((await one.get('/health/config', admin)).body, { optional_config: { redis: ['redis.url', 'redis.commandTimeoutMs'] } })
})

const rates = { messagesPerSecond: 1_000_000, burst: 1_000_000 }

/** Registries that share one Redis, optionally through other connections. */
async function fleet (t: Test, options: AgentRegistryOptions = {}, paths = [server.path, server.path]): Promise<Harness[]> {
  const namespace = newNamespace()
  return await Promise.all(paths.map(async url => await build(t, {
    storage: 'redis',
    namespace,
    agentsWs: {
      ...rates, intervalMs: 60_000, maxConnections: 1000
    },
    redis: { url, commandTimeoutMs: 10_000, probeIntervalMs: 300 },
    ...options
  })))
}

async function tokenFor (registries: Harness[], id: string): Promise<string> {
  const token = await registries[0]!.join(id)
  for (const { app } of registries) await until(() => app.agentRegistry.get(id))
  return token
}

t.test('channels across processes: messages beyond the history are reported as a gap', async t => {
  const registries = await fleet(t, { messaging: { historyEntries: 40 } })
  const roaming = new RoamingSubscriber(registries, await tokenFor(registries, 'agent-roaming'))
  const publisher = await registries[0]!.agentSocket(await tokenFor(registries, 'agent-publisher'))
  await roaming.move()
  for (let round = 0; round < 10; round++) {
    for (let n = 0; n < (round % 2 ? 20 : 100); n++) publisher.send({ type: 'publish', channel, data: n })
    if (round % 3 === 0) await ask(publisher, { type: 'publish', channel, data: 'last' })
    await roaming.move()
  }
  const { offset: end } = await ask(publisher, { type: 'publish', channel, data: 'end' })
  await until(() => roaming.received.at(-1)?.offset === end, 20_000)
  const offsets = roaming.received.map(({ offset }) => offset)
  const jumps = offsets.filter((offset, index) => offset !== (offsets[index - 1] ?? 0) + 1).length
  const reported = roaming.recovered.filter(recovered => !recovered).length + roaming.gaps.length
  t.ok(offsets.every((offset, index) => offset > (offsets[index - 1] ?? 0)), 'each once, in order')
  t.ok(jumps > 0 && jumps <= reported, `${jumps} jumps, ${reported} reported`)
})

t.test('channels across processes: a process disconnected during heavy traffic reports the gap to its subscribers', async t => {
  const proxy = await RedisProxy.start(server)
  t.teardown(() => { proxy.stop() })
  const registries = await fleet(t, { messaging: { historyEntries: 20 } }, [server.path, proxy.path])
  const [here, there] = registries as [Harness, Harness]
  const one = await there.agentSocket(await tokenFor(registries, 'agent-one'))
  const pattern = await there.agentSocket(await tokenFor(registries, 'agent-two'))
  const { epoch } = await ask(one, { type: 'subscribe', channel })
  await ask(pattern, { type: 'subscribe', channel: 'workflows/**' })
  await here.app.agentRegistry.publish(channel, 'before')
  for (const client of [one, pattern]) await client.next('message')
  const reported: Json[] = []
  await there.app.agentRegistry.onMessage(channel, message => { reported.push(message) })
  proxy.close()
  for (let n = 1; n <= 100; n++) await here.app.agentRegistry.publish(channel, n)
  t.match(await ask(one, { type: 'publish', channel, data: 'lost' }), { type: 'error', code: 'storage_unavailable', retryAfterMs: Number })
  t.match(await ask(one, { type: 'subscribe', channel: 'agents/new', presence: true }), { type: 'error', code: 'storage_unavailable' })
  t.match(await ask(one, { type: 'subscribe', channel: 'agents/*' }), { type: 'error', code: 'storage_unavailable' })
  for (const name of ['agents/new', 'agents/*']) {
    t.match(await there.app.agentRegistry.onMessage(name, () => {})
      .catch((error: unknown) => error), { type: 'storage-unavailable' })
  }
  proxy.reopen()
  for (const client of [one, pattern]) {
    t.same(await client.next('channel_gap', 20_000), { type: 'channel_gap', channel, epoch, offset: 81, recovered: false })
    await until(() => client.all.filter(({ type }) => type === 'message').length === 21)
    t.same(client.all.filter(({ type }) => type === 'message')
      .map(({ offset }) => offset), [1, ...Array.from({ length: 20 }, (_, n) => 82 + n)])
  }
  t.same(reported.map(({ offset }) => offset), Array.from({ length: 20 }, (_, n) => 82 + n))
  await until(async () => (await ask(one, { type: 'subscribe', channel: 'agents/new' })).type === 'ack', 20_000)
})

t.test('channels across processes: a message sent again after a disconnect is stored once', async t => {
  const registries = await fleet(t)
  const [here, there] = registries as [Harness, Harness]
  const token = await tokenFor(registries, 'agent-one')
  const listener = await there.agentSocket(await tokenFor(registries, 'agent-two'))
  await ask(listener, { type: 'subscribe', channel })
  const first = await here.agentSocket(token)
  first.send({ type: 'publish', channel, data: 1, msgId: 'm' })
  await listener.next('message')
  first.ws.terminate()
  const second = await there.agentSocket(token)
  const { epoch } = await ask(listener, { type: 'history', channel })
  t.match(await ask(second, { type: 'publish', channel, data: 1, msgId: 'm' }), { type: 'ack', duplicate: true, epoch, offset: 1 })
  await ask(second, { type: 'publish', channel, data: 2 })
  await listener.next('message')
  t.same(listener.all.filter(({ type }) => type === 'message').map(({ data }) => data), [1, 2])
})

t.test('channels across processes: presence covers all processes', async t => {
  const registries = await fleet(t)
  const [here, there] = registries as [Harness, Harness]
  const watcher = await here.agentSocket(await tokenFor(registries, 'agent-watcher'))
  await ask(watcher, { type: 'subscribe', channel, presence: true })
  const token = await tokenFor(registries, 'agent-one')
  const sockets = [await here.agentSocket(token), await there.agentSocket(token)]
  for (const socket of sockets) await ask(socket, { type: 'subscribe', channel })
  const deltas = () => watcher.all.filter(({ type, snapshot }) => type === 'presence' && !snapshot)
  await until(() => deltas().length === 1)
  await ask(sockets[1]!, { type: 'presence_update', metadata: { mood: 'busy' } })
  await until(() => deltas().at(-1).joined[0]?.metadata.mood === 'busy')
  await until(() => deltas().length === 3, 1000).catch(() => {})
  for (const { app } of registries) {
    t.match((await app.agentRegistry.presence(channel)).find(({ peerId }) =>
      peerId === 'agent-one'), { metadata: { mood: 'busy', agent_id: 'agent-one' } })
  }
  const before = deltas().length
  sockets[0]!.ws.close()
  await until(async () => !(await ask(watcher, { type: 'presence', channel })).joined.every((member: Json) =>
    member.peerId !== 'agent-one'))
  sockets[1]!.ws.terminate()
  await until(() => deltas().length > before)
  t.same(deltas().slice(before).map(({ joined, left }) => [joined, left]), [[[], [{ peerId: 'agent-one' }]]])
})

t.test('channels across processes: a token revoked at one process receives no more messages from the other', async t => {
  const registries = await fleet(t)
  const [here, there] = registries as [Harness, Harness]
  const admin = await here.admin()
  const one = await there.agentSocket(await tokenFor(registries, 'agent-one'))
  await ask(one, { type: 'subscribe', channel })
  t.equal((await here.post('/tokens/revoke', { ...admin, body: { agent_id: 'agent-one' } })).status, 200)
  const revokedAt = Date.now()
  t.match(await one.closed, { code: 4001 })
  t.ok(Date.now() - revokedAt < 1000)
  await here.app.agentRegistry.publish(channel, 1)
  await until(async () => (await here.app.agentRegistry.presence(channel)).length === 0)
  t.notOk(one.all.some(({ type }) => type === 'message'))
})

for (const isTrimmed of [false, true]) {
  t.test(`channels across processes: after a Redis outage a lagging subscriber ${isTrimmed
    ? 'learns of the gap'
    : 'receives the rest'}`, async t => {
    const proxy = await RedisProxy.start(server)
    t.teardown(() => { proxy.stop() })
    const registries = await fleet(t, { messaging: { historyEntries: 300, historyBytes: 60_000_000 } }, [server.path, proxy.path])
    const [here, there] = registries as [Harness, Harness]
    const { agentRegistry } = here.app
    const { epoch } = await agentRegistry.publish(channel, 0)
    for (let n = 1; n < 300; n++) await agentRegistry.publish(channel, 'x'.repeat(60_000))
    const one = await there.agentSocket(await tokenFor(registries, 'agent-one'))
    one.send({ type: 'subscribe', channel, since: { epoch, offset: 0 } })
    await one.next('ack')
    one.ws.pause()
    // By now the socket buffers are full.
    await sleep(500)
    proxy.close()
    await until(async () => (await there.get('/health')).body.storage.redis !== 'connected', 20_000)
    one.ws.resume()
    if (isTrimmed) for (let n = 0; n < 400; n++) await agentRegistry.publish(channel, n)
    const offsets = () => one.all.filter(({ type }) => type === 'message').map(({ offset }) => offset)
    await sleep(1500)
    const before = offsets().length
    t.ok(before < 300, `${before} before Redis is back`)
    proxy.reopen()
    const end = isTrimmed ? 700 : 300
    await until(() => offsets().at(-1) === end, 30_000)
    const gaps = one.all.filter(({ type }) => type === 'channel_gap')
    const expected = isTrimmed
      ? [...Array.from({ length: before }, (_, n) =>
          n + 1), ...Array.from({ length: 300 }, (_, n) => 401 + n)]
      : Array.from({ length: 300 }, (_, n) => n + 1)
    t.same(offsets(), expected)
    t.same(gaps.map(({ offset }) => offset), isTrimmed ? [400] : [])
  })
}

t.test('channels across processes: presence after a Redis outage shows the last state of each peer', async t => {
  const proxy = await RedisProxy.start(server)
  t.teardown(() => { proxy.stop() })
  const registries = await fleet(t, {}, [server.path, proxy.path])
  const [here, there] = registries as [Harness, Harness]
  const tokens = await Promise.all(['agent-one', 'agent-two', 'agent-three'].map(id => tokenFor(registries, id)))
  const [one, two] = [await there.agentSocket(tokens[0]!), await there.agentSocket(tokens[1]!)]
  for (const client of [one, two]) await ask(client, { type: 'subscribe', channel })
  proxy.close()
  await until(async () => (await there.get('/health')).body.storage.redis !== 'connected', 20_000)
  await there.agentSocket(tokens[2]!)
  t.match(await ask(one, { type: 'presence_update', metadata: { mood: 'cut off' } }), { type: 'error', code: 'storage_unavailable' })
  two.ws.close()
  await two.closed
  await sleep(1500)
  proxy.reopen()
  const namesIn = async (name: string) =>
    (await here.app.agentRegistry.presence(name)).map(({ peerId, metadata }) => `${peerId} ${metadata.mood ?? '-'}`).sort().join()
  await until(async () => await namesIn('$agents') === 'agent-one cut off,agent-three -', 30_000)
  await until(async () => await namesIn(channel) === 'agent-one cut off', 30_000)
  t.pass('all messages arrive')
})
