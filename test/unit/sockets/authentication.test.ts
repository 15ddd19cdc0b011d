import t from 'tap'
import type { Principal } from '../../../src/index.js'
import { build, keys, sleep, until, type Client, type Harness, type Json } from '../../support/harness.js'
import { assertAlive, expired, forge, strangeFrames, unsigned } from './helper.js'

const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } })

async function ticketFor (registry: Harness, token: string, tier = 'agents'): Promise<string> {
  return (await registry.post('/ws-tickets', { token, body: { tier } })).body.ticket
}

/** Every way to bring a token along with the upgrade. */
const ways: Record<string, (registry: Harness, token: string) => Client> = {
  header: (registry, token) => registry.socket('/agents/ws', [], bearer(token)),
  subprotocol: (registry, token) => registry.socket('/agents/ws', ['agent-registry.json', `bearer.${token}`]),
  query: (registry, token) => registry.socket(`/agents/ws?token=${token}`)
}

async function userToken (registry: Harness, role = 'user', id = 'human-one'): Promise<string> {
  const { body } = await registry.post('/tokens/mint', { ...await registry.admin(), body: { user_id: id, agent_id: id, role } })
  return body.access_token
}

t.test('a token that comes with the upgrade is all it takes', async t => {
  const registry = await build(t)
  const token = await registry.join()
  for (const [way, open] of Object.entries(ways)) {
    const client = open(registry, token)
    t.match(await client.next(), { type: 'auth_success', agent_id: 'agent-one', role: 'agent' }, way)
    t.ok(Array.isArray(await client.next()), `${way}: the list is next`)
    t.equal(client.ws.protocol, way === 'subprotocol' ? 'agent-registry.json' : '', `${way}: nothing secret is echoed`)
    t.strictSame(strangeFrames('agents', client.all), [])
  }
})

t.test('a bad token on the upgrade is accepted and closed with a code that says why', async t => {
  const registry = await build(t)
  const token = await registry.join()
  const temp = await registry.tempToken('agent-two')
  const bad: Array<[string, string, number, string]> = [
    ['garbage', 'x.y.z', 4001, 'Invalid token'],
    ['another secret', forge(token, {}, 'another secret of thirty-two characters'), 4001, 'Invalid token'],
    ['no signature', unsigned(token), 4001, 'Invalid token'],
    ['without a role', forge(token, { role: undefined }), 4001, 'Invalid token'],
    ['of another registry', forge(token, { iss: 'agent-registry:other' }), 4001, 'Invalid token'],
    ['of another instance', forge(token, { inc: 1 }), 4001, 'Invalid token'],
    ['expired', expired(token), 4002, 'Token expired'],
    ['temporary', temp, 4003, 'Insufficient permissions']
  ]
  for (const [name, text, code, reason] of bad) {
    for (const [way, open] of Object.entries(ways)) {
      const client = open(registry, text)
      t.strictSame(await client.closed, { code, reason }, `${name} by ${way}`)
      t.strictSame(client.all, [], 'and without a frame')
    }
  }
})

t.test('a header goes before a subprotocol, and both before the query', async t => {
  const registry = await build(t)
  const token = await registry.join()
  const header = registry.socket('/agents/ws?token=bad', ['agent-registry.json', 'bearer.bad'], bearer(token))
  t.equal((await header.next()).type, 'auth_success')
  const subprotocol = registry.socket('/agents/ws?token=bad', ['agent-registry.json', `bearer.${token}`])
  t.equal((await subprotocol.next()).type, 'auth_success')
  t.equal((await registry.socket(`/agents/ws?token=${token}`, [], bearer('bad')).closed).code, 4001)
  t.equal((await registry.socket(`/agents/ws?ticket=bad&token=${token}`).closed).code, 4001, 'a ticket before a token')
  t.equal((await registry.socket(`/agents/ws?token=${token}&token=${token}`).closed).code, 4001, 'two are none')
  t.equal((await registry.socket('/agents/ws?token=').next()).type, 'auth_required', 'an empty one is none')
})

t.test('a token as the only subprotocol is refused with a reason', async t => {
  const registry = await build(t)
  const token = await registry.join()
  for (const path of ['/agents/ws', '/public/ws']) {
    const { status, text } = await registry.socket(path, [`bearer.${token}`]).refused
    t.equal(status, 400)
    t.match(JSON.parse(text), { type: '/problems/request-error', detail: /agent-registry\.json/ })
    t.notOk(text.includes(token))
  }
  t.equal((await registry.get('/agents/ws')).status, 400, 'a request that is no upgrade')
})

t.test('a ticket opens one socket of one tier, for as long as its principal may come in', async t => {
  const registry = await build(t, { jwt: { expiresInMs: 3000 } })
  const token = await registry.join()
  const ticket = await ticketFor(registry, token)
  const client = registry.socket(`/agents/ws?ticket=${ticket}`)
  t.equal((await client.next()).agent_id, 'agent-one')
  t.strictSame(await registry.socket(`/agents/ws?ticket=${ticket}`).closed, { code: 4001, reason: 'Invalid token' }, 'once')
  const forPublic = await ticketFor(registry, token, 'public')
  t.equal((await registry.socket(`/agents/ws?ticket=${forPublic}`).closed).code, 4001, 'another tier')
  const late = await ticketFor(registry, token)
  await client.closed
  t.equal((await registry.socket(`/agents/ws?ticket=${late}`).closed).code, 4002, 'expired since')
  const replaced = await ticketFor(registry, await registry.join())
  await registry.join()
  t.equal((await registry.socket(`/agents/ws?ticket=${replaced}`).closed).code, 4001, 'replaced since')
  const race = await ticketFor(registry, await registry.join())
  const outcomes = await Promise.all(Array.from({ length: 5 }, async () => {
    const one = registry.socket(`/agents/ws?ticket=${race}`)
    return Promise.race([one.next().then(({ type }) => type), one.closed.then(({ code }) => code)])
  }))
  t.strictSame(outcomes.sort(), [4001, 4001, 4001, 4001, 'auth_success'], 'taken by one of five')
})

t.test('the first message authenticates, and the answer says all that a client needs', async t => {
  const registry = await build(t, { lease: { durationMs: 30_000 }, agentsWs: { messagesPerSecond: 7, burst: 9, maxMessageSize: 1000 } })
  const token = await registry.join()
  await registry.join('agent-two')
  const client = registry.socket('/agents/ws')
  t.strictSame(await client.next(), { type: 'auth_required', message: 'Send your authentication token' })
  client.send({ token, requestId: 'r1' })
  const { connectionId, serverTime, expiresAt, ...success } = await client.next()
  t.strictSame(success, {
    type: 'auth_success',
    message: 'Authentication successful',
    agent_id: 'agent-one',
    role: 'agent',
    heartbeatInterval: 10,
    leaseMs: 30_000,
    limits: { maxMessageSize: 1000, messagesPerSecond: 7, burst: 9, channels: 100 },
    requestId: 'r1'
  })
  t.match(connectionId, /^[0-9a-f-]{36}$/)
  t.ok(Math.abs(serverTime - Date.now() / 1000) < 10)
  t.equal(expiresAt, JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()).exp)
  const list = await client.next()
  t.strictSame(list.map((agent: Json) => agent.agent_id), ['agent-one', 'agent-two'])
})

t.test('users and admins come in too, and tokens of agents that went do not', async t => {
  const registry = await build(t)
  const admin = await registry.agentSocket((await registry.admin()).token)
  t.match(admin.success, { role: 'admin', agent_id: 'user_admin' })
  const user = await registry.agentSocket(await userToken(registry))
  t.match(user.success, { role: 'user', agent_id: 'human-one' })
  for (const frame of [{ type: 'goodbye', requestId: 'r' }, { type: 'status', status: 'alive', requestId: 'r' }]) {
    user.send(frame)
    t.match(await user.next('error'), { code: 'action_not_permitted', requestId: 'r' })
  }
  const token = await registry.join()
  await registry.app.agentRegistry.unregister('agent-one')
  t.equal((await registry.socket(`/agents/ws?token=${token}`).closed).code, 4001)
})

t.test('every wrong first message has its text and its reason', async t => {
  const registry = await build(t, { sockets: { maxUnauthenticatedPerAddress: 64 } })
  const token = await registry.join()
  const temp = await registry.tempToken('agent-two', keys.other)
  const wrong: Array<[string, unknown, string, string]> = [
    ['no token', {}, 'Token required', 'Authentication required'],
    ['an empty token', { token: '' }, 'Token required', 'Authentication required'],
    ['a token that is null', { token: null }, 'Token required', 'Authentication required'],
    ['a frame that no tier knows', { type: 'nope' }, 'Token required', 'Authentication required'],
    ['auth without a token', { type: 'auth' }, 'Token required', 'Authentication required'],
    ['garbage', { token: 'garbage' }, 'Invalid token', 'Invalid token'],
    ['a prefix', { token: `Bearer ${token}` }, 'Invalid token', 'Invalid token'],
    ['a number', { token: 5 }, 'Invalid token', 'Invalid token'],
    ['an object', { token: { token } }, 'Invalid token', 'Invalid token'],
    ['no signature', { token: unsigned(token) }, 'Invalid token', 'Invalid token'],
    ['another secret', { token: forge(token, {}, 'another secret of thirty-two characters') }, 'Invalid token', 'Invalid token'],
    ['expired, by seconds', { token: expired(token) }, 'Invalid token', 'Invalid token'],
    ['a temporary token', { token: temp }, 'Insufficient permissions', 'Insufficient permissions'],
    ['not JSON', 'hello', 'Invalid JSON', 'Invalid JSON'],
    ['a prototype', `{"token":"${token}","__proto__":{}}`, 'Invalid JSON', 'Invalid JSON'],
    ['an array', '[1]', 'Authentication failed', 'Authentication failed'],
    ['null', 'null', 'Authentication failed', 'Authentication failed']
  ]
  for (const [name, frame, message, reason] of wrong) {
    const client = registry.socket('/agents/ws')
    await client.next('auth_required')
    client.send(frame)
    t.strictSame(await client.next(), { type: 'auth_error', message }, name)
    t.strictSame(await client.closed, { code: 1008, reason }, name)
  }
})

t.test('what is only too large, binary or a ping does not end an attempt', async t => {
  const registry = await build(t)
  const client = registry.socket('/agents/ws')
  await client.next('auth_required')
  client.send(Buffer.from('x'))
  t.equal((await client.next()).code, 'unsupported_encoding')
  client.send(JSON.stringify({ token: 'x'.repeat(80_000) }))
  t.equal((await client.next()).code, 'message_too_large')
  client.send(' PING ')
  t.equal(await client.next(), 'pong')
  client.send({ type: 'ping', requestId: 'early' })
  t.match(await client.next(), { type: 'pong', requestId: 'early' })
  client.send({ type: 'auth', token: await registry.join() })
  t.equal((await client.next()).type, 'auth_success')
  await assertAlive(client)
})

t.test('a socket that says nothing is closed after the timeout, without a frame', async t => {
  const registry = await build(t, { agentsWs: { timeoutMs: 300 } })
  const client = registry.socket('/agents/ws')
  t.strictSame(await client.closed, { code: 1008, reason: 'Authentication timeout' })
  t.strictSame(client.all.map(({ type }) => type), ['auth_required'])
})

function hostPrincipal (more: Partial<Principal> = {}): Principal {
  return { type: 'user', role: 'user', subject: 'host-user', agentId: null, incarnation: null, tokenId: 'host-1', sessionId: null, expiresAt: null, scopes: [], keyDigest: null, ...more }
}

/** A host that takes its time, and says when it was asked. */
async function slowHost (t: Parameters<typeof build>[0], ms = 150) {
  let asked = 0
  const registry = await build(t, {
    authenticate: async token => {
      asked++
      await sleep(ms)
      return token === 'host-token' ? hostPrincipal() : null
    }
  })
  return { registry, asked: () => until(() => asked > 0) }
}

t.test('frames from before and during authentication are handled after it, in their order', async t => {
  const { registry, asked } = await slowHost(t)
  const client = registry.socket('/agents/ws')
  await client.next('auth_required')
  client.send({ type: 'watch', requestId: 'r1' })
  client.send({ type: 'unwatch', requestId: 'r2' })
  client.send({ token: 'host-token' })
  client.send({ type: 'nope', requestId: 'r3' })
  await asked()
  client.send({ type: 'watch', requestId: 'r4' })
  client.send({ type: 'ping', requestId: 'r5' })
  const order: unknown[] = []
  while (order.at(-1) !== 'r5') {
    const frame = await client.next()
    order.push(Array.isArray(frame) ? 'list' : frame.requestId ?? frame.type)
  }
  t.strictSame(order, ['auth_success', 'list', 'r1', 'r2', 'r3', 'r4', 'r5'])
  t.equal(client.all.find(({ type }) => type === 'auth_success').expiresAt, null)
})

t.test('more frames than are kept end the attempt', async t => {
  const registry = await build(t)
  const client = registry.socket('/agents/ws')
  await client.next('auth_required')
  for (let i = 0; i < 65; i++) client.send({ type: 'unwatch' })
  t.strictSame(await client.closed, { code: 1008, reason: 'Authentication required' })
})

t.test('a socket that goes while its token is checked leaves nothing behind', async t => {
  const { registry, asked } = await slowHost(t, 200)
  const client = registry.socket('/agents/ws')
  await client.next('auth_required')
  client.send({ token: 'host-token' })
  await asked()
  client.terminate()
  await client.closed
  const admin = await registry.admin()
  await sleep(250)
  const { body } = await registry.get('/agents/stats', admin)
  t.equal(body.performance.active_websocket_connections, 0)
})

t.test('a host that does not answer in time refuses the upgrade and leaves an open socket open', async t => {
  const registry = await build(t, { limits: { hookTimeoutMs: 50 }, authenticate: () => new Promise(() => {}) })
  const { status, text } = await registry.socket('/agents/ws?token=whose').refused
  t.match([status, JSON.parse(text)], [503, { type: '/problems/hook-failed' }])
  const client = registry.socket('/agents/ws')
  await client.next('auth_required')
  client.send({ token: 'whose', requestId: 'r' })
  t.match(await client.next(), { type: 'error', code: 'backend_error', requestId: 'r' })
  client.send({ token: await registry.join() })
  t.equal((await client.next()).type, 'auth_success')
})
