import t, { type Test } from 'tap'
import { RedisServer } from '../support/redis-server.js'
import { build, fingerprint, keys, password, registration, secret, until, type Client, type Harness } from '../support/harness.js'
import type { AgentRegistryOptions } from '../../src/index.js'

const server = await RedisServer.start()
t.teardown(() => server.stop())
let namespaces = 0

/** Two registries in one Redis, as two processes would be. */
async function pair (t: Test, options: AgentRegistryOptions = {}): Promise<[Harness, Harness]> {
  const shared: AgentRegistryOptions = { storage: 'redis', namespace: `pair-${namespaces++}`, redis: { url: server.path, commandTimeoutMs: 10_000 }, ...options }
  return [await build(t, shared), await build(t, shared)]
}

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

async function isLetIn (registry: Harness): Promise<boolean> {
  const client = registry.socket('/public/ws')
  const isOpen = await Promise.race([client.refused.then(() => false), client.opened.then(() => true)])
  client.close()
  return isOpen
}

t.test('two processes: a fleet-wide limit counts the sockets of both', async t => {
  const [one, two] = await pair(t, { publicWs: { maxFleetConnections: 3 } })
  const sockets = [one.socket('/public/ws'), one.socket('/public/ws'), two.socket('/public/ws')]
  for (const socket of sockets) await socket.next('welcome')
  // Each hears of the other's a little later.
  for (const registry of [one, two]) await until(async () => !await isLetIn(registry))
  t.equal((await two.socket('/public/ws').refused).status, 503)
  sockets[0]!.close()
  await until(() => isLetIn(two))
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
  t.match((await two.post('/agents/register', { token, body: registration('agent-one', { name: 'Another' }) })).body, { detail: 'This temporary token has been used' })
})

t.test('two processes: a repeated removal with a temporary token at the other process gets the same response', async t => {
  const [one, two] = await pair(t)
  await one.register()
  const token = await one.tempToken()
  t.match(await one.delete('/agents/agent-one', { token }), { status: 200 })
  t.match(await two.delete('/agents/agent-one', { token }), { status: 200 })
  await one.register('agent-two', {}, keys.other)
  t.match(await two.delete('/agents/agent-two', { token: await two.tempToken('agent-two') }), { status: 403 }, 'an agent of another key stays')
})

t.test('two processes: failed attempts are counted across both processes', async t => {
  const [one, two] = await pair(t, { attempts: { burst: 4, windowMs: 900_000 } })
  const headers = { 'x-client-fingerprint': fingerprint }
  const login = (registry: Harness, text: string) => registry.post('/auth/login', { headers, body: { username: 'admin', password: text } })
  for (const registry of [one, two, one, two]) t.equal((await login(registry, 'wrong')).status, 401)
  for (const registry of [one, two]) t.equal((await login(registry, password)).status, 429)
  const request = (registry: Harness, key: string) => registry.post('/auth/agent/request_temp_token', { body: { agent_id: 'agent-one', agent_type: 'testing', agent_key: key } })
  for (const registry of [one, two, one, two]) t.equal((await request(registry, 'a wrong agent key')).status, 401)
  t.equal((await request(one, 'a wrong agent key')).status, 429)
  t.equal((await request(one, keys.plain)).status, 429)
})

t.test('two processes: processes without a secret share one, and agents keep their keys when it rotates', async t => {
  const [one, two] = await pair(t, { jwt: {} })
  const token = await one.agent()
  t.equal((await two.get('/agents/agent-one', { token })).status, 200)
  const namespace = `pair-${namespaces - 1}`
  const fresh = await build(t, { storage: 'redis', namespace, redis: { client: server.client }, jwt: { secret: [`another ${secret}`] } })
  t.equal((await fresh.get('/agents/agent-one', { token })).status, 401)
  t.equal((await fresh.delete('/agents/agent-one', { token: await fresh.tempToken() })).status, 200)
})

t.test('two processes: the log names the Redis in use', async t => {
  const [one] = await pair(t)
  const admin = await one.admin()
  t.match((await one.get('/health')).body, { status: 'healthy', storage: { redis: 'connected' }, features: { redis_storage: true }, performance: { redis_connected: true } })
  t.match((await one.get('/health/redis', admin)).body, { status: 'healthy', redis: 'connected' })
  t.match((await one.get('/health/detailed', admin)).body, { detailed: { database: { type: 'redis' } } })
  t.match((await one.get('/agents/stats', admin)).body, { registry_statistics: { redis_connected: true }, features: { redis_storage_enabled: true } })
  t.match((await one.get('/health/config', admin)).body, { optional_config: { redis: ['redis.url', 'redis.commandTimeoutMs'] } })
})
