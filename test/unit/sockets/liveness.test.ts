import t, { type Test } from 'tap'
import type { Principal, RegistryEvent } from '../../../src/index.js'
import { build, keys, registration, sleep, until, type Client, type Harness } from '../../support/harness.js'
import { assertAlive } from './helper.js'

const leaseMs = 300

/** A registry with short leases, and all that happened in it. */
async function start (t: Test, options: Parameters<typeof build>[1] = {}) {
  const registry = await build(t, { lease: { durationMs: leaseMs }, ...options })
  const events: RegistryEvent[] = []
  registry.app.agentRegistry.events.on('change', event => { events.push(event) })
  const reasons = () => events.map(({ reason }) => reason)
  return { registry, events, reasons }
}

const stateOf = (registry: Harness, id = 'agent-one') => registry.app.agentRegistry.get(id)?.state

/** An agents socket that does not answer protocol pings. */
async function withoutPongs (registry: Harness, token: string, more: object = {}): Promise<Client> {
  const client = registry.socket('/agents/ws', [], { autoPong: false })
  await client.next('auth_required')
  client.send({ token, ...more })
  await client.next('list')
  return client
}

t.test('an agent lives by the pongs of its silent socket alone, and after it for one lease', async t => {
  const { registry, reasons } = await start(t)
  const client = await registry.agentSocket(await registry.join())
  await sleep(5 * leaseMs)
  t.strictSame(reasons(), ['created', 'first-sign'])
  t.equal(stateOf(registry), 'alive')
  client.close(1000)
  await until(() => stateOf(registry) === 'dead')
  t.strictSame(reasons(), ['created', 'first-sign', 'lease-expired'])
})

t.test('an agent lives by the frames of a socket that answers no pings', async t => {
  const { registry, reasons } = await start(t)
  const client = await withoutPongs(registry, await registry.join())
  const talk = setInterval(() => client.send('pong'), leaseMs / 6)
  await sleep(4 * leaseMs)
  t.strictSame(reasons(), ['created', 'first-sign'])
  clearInterval(talk)
  await until(() => stateOf(registry) === 'dead')
  t.equal(client.ws.readyState, client.ws.OPEN, 'an open socket alone is no life')
  client.send('pong')
  await until(() => stateOf(registry) === 'alive')
  t.equal(reasons().at(-1), 'revived')
})

t.test('a socket that breaks makes its agent suspect at once and dead after the lease', async t => {
  const { registry, events } = await start(t, { lease: { durationMs: 1500 } })
  const client = await registry.agentSocket(await registry.join())
  await until(() => stateOf(registry) === 'alive')
  client.terminate()
  await until(() => stateOf(registry) === 'suspect')
  t.match(registry.app.agentRegistry.get('agent-one'), { status: 'alive', state: 'suspect' })
  const { total_agents: total, alive_agents: alive } = registry.app.agentRegistry.stats()
  t.strictSame([total, alive], [1, 1])
  await until(() => stateOf(registry) === 'dead')
  t.strictSame(events.map(({ reason, previous }) => [previous, reason]), [[null, 'created'], ['starting', 'first-sign'], ['alive', 'connection-lost'], ['suspect', 'lease-expired']])
})

t.test('a suspect agent is alive again with its next socket, and a plain key may register it anew', async t => {
  const { registry, reasons } = await start(t, { lease: { durationMs: 30_000 } })
  const { body: { access_token: token } } = await registry.register('agent-one')
  const first = await registry.agentSocket(token)
  t.equal((await registry.register('agent-one')).status, 409, 'while it is connected it may not')
  first.terminate()
  await until(() => stateOf(registry) === 'suspect')
  const second = await registry.agentSocket(token)
  await until(() => stateOf(registry) === 'alive')
  t.equal(reasons().at(-1), 'resumed')
  second.terminate()
  await until(() => stateOf(registry) === 'suspect')
  t.equal((await registry.post('/agents/register', { token: await registry.tempToken('agent-one', keys.other), body: registration() })).status, 409, 'another key')
  t.equal((await registry.register('agent-one')).status, 200)
})

t.test('one of two sockets that breaks is not enough, unless the other one only observes', async t => {
  const { registry, reasons } = await start(t, { lease: { durationMs: 30_000 } })
  const token = await registry.join()
  const [one, two] = [await registry.agentSocket(token), await registry.agentSocket(token)]
  const observer = await registry.agentSocket(token, { observe: true })
  one.terminate()
  await one.closed
  await assertAlive(two)
  t.notOk(reasons().includes('connection-lost'))
  two.terminate()
  await until(() => stateOf(registry) === 'suspect')
  observer.terminate()
  await observer.closed
})

t.test('a close frame of whatever code is not a break', async t => {
  const { registry, reasons } = await start(t, { lease: { durationMs: 30_000 } })
  const token = await registry.join()
  for (const code of [1000, 1001, 3000, undefined]) {
    const client = await registry.agentSocket(token)
    client.close(code)
    await client.closed
  }
  await registry.app.agentRegistry.setStatus('agent-one', 'draining')
  const draining = await registry.agentSocket(token)
  draining.terminate()
  const observer = await registry.agentSocket(token, { observe: true })
  observer.terminate()
  await until(async () => (await registry.get('/agents/stats', await registry.admin())).body.performance.active_websocket_connections === 0)
  t.equal(stateOf(registry), 'draining', 'what an agent asked for lasts')
  t.notOk(reasons().includes('connection-lost'))
})

t.test('a socket that observes does not keep its agent alive', async t => {
  const { registry, reasons } = await start(t)
  const client = await registry.agentSocket(await registry.join(), { observe: true })
  const talk = setInterval(() => client.send({ type: 'ping' }), leaseMs / 6)
  t.teardown(() => clearInterval(talk))
  await until(() => stateOf(registry) === 'dead')
  t.strictSame(reasons(), ['created', 'lease-expired'])
  await assertAlive(client)
})

t.test('the socket of an older instance is closed with 4009 and renews nothing', async t => {
  const { registry, reasons } = await start(t)
  const old = await registry.agentSocket(await registry.join())
  await until(() => stateOf(registry) === 'alive')
  old.send({ type: 'ping' })
  await registry.join()
  const { last_seen: since, incarnation } = registry.app.agentRegistry.get('agent-one')!
  t.strictSame(await old.closed, { code: 4009, reason: 'Replaced by a newer instance' })
  await until(() => stateOf(registry) === 'dead')
  t.match(registry.app.agentRegistry.get('agent-one'), { last_seen: since, incarnation })
  t.strictSame(reasons(), ['created', 'first-sign', 'replaced', 'lease-expired'])
})

t.test('a token that expires closes the socket and does not make its agent suspect', async t => {
  const { registry, reasons } = await start(t, { lease: { durationMs: 30_000 }, jwt: { expiresInMs: 1500 } })
  const client = await registry.agentSocket(await registry.join())
  t.equal((await client.closed).code, 4002)
  t.notOk(reasons().includes('connection-lost'))
})

t.test('an agent that the host authenticates lives by its socket and outlives a registration', async t => {
  const principal: Principal = { type: 'agent', role: 'agent', subject: 'agent-one', agentId: 'agent-one', incarnation: null, tokenId: 'h', sessionId: null, expiresAt: null, scopes: [], keyDigest: null }
  const { registry, reasons } = await start(t, { authenticate: () => principal })
  await registry.join()
  const client = await registry.agentSocket('of-the-host')
  await sleep(4 * leaseMs)
  await registry.join()
  await sleep(4 * leaseMs)
  t.strictSame(reasons(), ['created', 'first-sign', 'replaced', 'first-sign'])
  await assertAlive(client)
  client.terminate()
  await until(() => reasons().includes('connection-lost'))
})

t.test('a registry that shuts down suspects nobody', async t => {
  const { registry, reasons } = await start(t, { lease: { durationMs: 30_000 } })
  const client = await registry.agentSocket(await registry.join())
  client.ws.on('message', data => { if (String(data).includes('going_away')) client.terminate() })
  await registry.app.close()
  t.notOk(reasons().includes('connection-lost'))
})
