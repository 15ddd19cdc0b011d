import t from 'tap'
import type { Principal } from '../../../src/index.js'
import { build, type Client, type Harness, type Json, keys, registration, sleep, until } from '../../support/harness.js'
import { assertAlive, expired, forge, nextWhere, refusalOf, undocumentedFrames, unsigned } from './helper.js'

const bearer = (token: string, localAddress?: string) =>
  ({ headers: { authorization: `Bearer ${token}` }, ...(localAddress && { localAddress }) })
const ids = (list: Json): string[] => list.map((agent: Json) => agent.agent_id)
const claimsOf = (token: string) => JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString())

async function withoutToken (registry: Harness, localAddress = '127.0.0.1'): Promise<Client> {
  const client = registry.socket('/agents/ws', [], { localAddress })
  await Promise.race([client.next('auth_required'), client.refused])
  return client
}

const isIn = ({ all }: Client) => all.length > 0

t.test('sockets: unauthenticated sockets have separate slots, per tier and per address', async t => {
  const registry = await build(t, { sockets: { maxUnauthenticated: 3, maxUnauthenticatedPerAddress: 2 } })
  const token = await registry.join()
  const member = await registry.agentSocket(token)
  const [first, second, third] = [await withoutToken(registry), await withoutToken(registry), await withoutToken(registry)]
  t.strictSame([first, second, third].map(isIn), [true, true, false], 'two of one address')
  const { status, headers } = await third.refused
  t.strictSame([status, headers['retry-after'], headers.connection], [503, '5', 'close'])
  const others = [await withoutToken(registry, '127.0.0.2'), await withoutToken(registry, '127.0.0.3')]
  t.strictSame(others.map(isIn), [true, false], 'three of the tier')
  t.equal((await registry.socket('/agents/ws?token=bad').refused).status, 503, 'a bad token uses such a slot too')
  const known = registry.socket('/agents/ws', [], bearer(token))
  t.equal((await known.next()).type, 'auth_success', 'an authenticated socket does not')
  await assertAlive(member)
  await registry.watcher()
  first.send({ token })
  await first.next('auth_success')
  t.ok(isIn(await withoutToken(registry)), 'a slot is free once its socket is authenticated')
  second.close()
  await second.closed
  await until(async () => isIn(await withoutToken(registry)))
})

t.test('agents tier: sockets up to its limit are accepted, and the next upgrade is refused', async t => {
  const registry = await build(t, { agentsWs: { maxConnections: 2 } })
  const token = await registry.join()
  const waiting = [await withoutToken(registry), await withoutToken(registry), await withoutToken(registry)]
  const known = await Promise.all(Array.from({ length: 4 }, async () => {
    const client = registry.socket('/agents/ws', [], bearer(token))
    return Promise.race([client.next('list').then(() => client), client.refused])
  }))
  const refused = known.filter(outcome => 'status' in outcome)
  t.strictSame(refused.map(({ status, headers }) => [status, headers['retry-after']]), [[503, '5'], [503, '5']])
  t.equal((await registry.socket('/agents/ws').refused).status, 503, 'also without a token')
  waiting[0]!.send({ token })
  t.strictSame(await waiting[0]!.closed, { code: 1013, reason: 'Too many connections' }, 'full since it connected')
  const held = known.find(outcome => 'ws' in outcome) as Client
  await assertAlive(held)
  held.close(1000)
  await held.closed
  waiting[1]!.send({ token })
  t.equal((await waiting[1]!.next()).type, 'auth_success')
})

t.test('agents_update: it is a bare array of all agents, sent again after every change', async t => {
  const registry = await build(t, { lease: { durationMs: 600 } })
  await registry.join('agent-old')
  await until(() => registry.app.agentRegistry.get('agent-old')!.status === 'dead')
  const client = registry.socket('/agents/ws', [], bearer((await registry.admin()).token))
  const first = await client.next('list')
  t.match(first, [{ agent_id: 'agent-old', status: 'dead', state: 'dead' }])
  const { agentRegistry } = registry.app
  await agentRegistry.heartbeat('agent-old')
  await nextWhere(client, 'list', ([agent]) => agent.status === 'alive')
  const token = await registry.join('agent-new')
  t.strictSame(ids(await nextWhere(client, 'list', list => list.length === 2)), ['agent-old', 'agent-new'])
  await registry.patch('/agents/agent-new', { token, body: { name: 'Renamed' } })
  await nextWhere(client, 'list', list => list[1].name === 'Renamed')
  await agentRegistry.setStatus('agent-new', 'draining')
  await nextWhere(client, 'list', list => list[1].state === 'draining')
  await nextWhere(client, 'list', list => list[1].status === 'dead')
  await agentRegistry.unregister('agent-new')
  t.strictSame(ids(await nextWhere(client, 'list', list => list.length === 1)), ['agent-old'])
  t.strictSame(undocumentedFrames('agents', client.all), [])
})

t.test('agents_update: twenty concurrent registrations cause few lists', async t => {
  const registry = await build(t, { agentsWs: { intervalMs: 400 } })
  const client = await registry.agentSocket(await registry.join())
  const started = Date.now()
  await Promise.all(Array.from({ length: 20 }, (_, i) => registry.register(`agent-${i}`)))
  await nextWhere(client, 'list', list => list.length === 21)
  const lists = client.all.filter(Array.isArray).length
  t.ok(lists <= 3 + Math.ceil((Date.now() - started) / 400), `${lists} lists`)
})

t.test('agents_update: a truncated list is followed by the missing agents', async t => {
  const registry = await build(t, { sockets: { maxAgentsPerUpdate: 3 } })
  const tokens: string[] = []
  for (let i = 0; i < 5; i++) tokens.push(await registry.join(`agent-${i}`))
  const client = registry.socket('/agents/ws', [], bearer(tokens[0]!))
  t.strictSame(ids(await client.next('list')), ['agent-4', 'agent-3', 'agent-2'], 'the newest first')
  t.strictSame(await client.next(), { type: 'agents_truncated', total_count: 5, sent: 3, revision: registry.app.agentRegistry.revision })
  await registry.patch('/agents/agent-1', { token: tokens[1]!, body: { name: 'Renamed' } })
  t.strictSame(ids(await nextWhere(client, 'list', list => list[0].name === 'Renamed')), ['agent-1', 'agent-4', 'agent-3'])
  t.match(await client.next('agents_truncated'), { total_count: 5, sent: 3 })
  t.strictSame(undocumentedFrames('agents', client.all), [])
})

t.test('agent status: it is set as requested, and acknowledged on request', async t => {
  const registry = await build(t)
  const client = await registry.agentSocket(await registry.join())
  const watcher = await registry.watcher()
  for (const status of ['draining', 'alive', 'maintenance', 'alive'] as const) {
    client.send({ type: 'status', status, requestId: status })
    t.strictSame(await client.next('ack'), { type: 'ack', requestId: status })
    t.match(registry.app.agentRegistry.get('agent-one'), { state: status, status: 'alive' })
    await nextWhere(watcher, 'agents_update', ({ data }) => data.total_count === (status === 'alive' ? 1 : 0))
    await assertAlive(client)
    t.equal(registry.app.agentRegistry.get('agent-one')!.state, status, 'a requested status persists')
  }
  for (const status of ['dead', 'suspect', 'starting', 5, undefined]) {
    t.match(await refusalOf(client, { type: 'status', status, requestId: 'r' }), { code: 'invalid_frame', requestId: 'r' })
  }
})

t.test('goodbye: it unregisters the agent, is acknowledged and closes all its sockets', async t => {
  const registry = await build(t)
  const token = await registry.join()
  const [client, other, watcher] = [await registry.agentSocket(token), await registry.agentSocket(token), await registry.watcher()]
  client.send({ type: 'goodbye', requestId: 'bye' })
  t.strictSame(await client.next('ack'), { type: 'ack', requestId: 'bye' })
  t.strictSame(await client.closed, { code: 1000, reason: 'Goodbye' })
  t.strictSame(await other.closed, { code: 4001, reason: 'Token revoked' })
  t.equal((await watcher.next('agents_update')).data.total_count, 0)
  t.equal(registry.app.agentRegistry.get('agent-one'), undefined)
  t.equal((await registry.post('/agents/register', { token, body: registration() })).status, 200, 'its own requestId is kept')
})

t.test('goodbye: frames after it are not handled', async t => {
  const registry = await build(t)
  const client = await registry.agentSocket(await registry.join())
  client.send({ type: 'goodbye', requestId: 'one' })
  client.send({ type: 'goodbye', requestId: 'two' })
  client.send({ type: 'status', status: 'alive', requestId: 'three' })
  await client.closed
  t.strictSame(client.all.filter(({ type }) => type === 'ack' || type === 'error'), [{ type: 'ack', requestId: 'one' }])
})

t.test('reauthentication: a new token replaces the old one on the open socket', async t => {
  const registry = await build(t, { jwt: { expiresInMs: 3000 } })
  const token = await registry.join()
  await registry.join('agent-two')
  const client = await registry.agentSocket(token)
  t.equal((await client.next('token_expiring')).expiresAt, claimsOf(token).exp)
  const stranger = await registry.join('agent-two')
  const refused: Array<[string, string, string]> = [
    ['somebody else', stranger, 'The token belongs to another subject'],
    ['garbage', 'garbage', 'Invalid token'],
    ['expired', expired(token), 'Invalid token'],
    ['temporary', await registry.tempToken('agent-three'), 'The token belongs to another subject']
  ]
  for (const [name, text, message] of refused) {
    t.strictSame(await refusalOf(client, { type: 'auth', token: text, requestId: 'r' }), {
      type: 'error', code: 'action_not_permitted', message, requestId: 'r'
    }, name)
  }
  let renewed = token
  await until(async () => {
    renewed = (await registry.post('/tokens/refresh', { token })).body.access_token
    return claimsOf(renewed).exp > claimsOf(token).exp
  })
  client.send({ type: 'auth', token: renewed, requestId: 'r' })
  t.match(await client.next('auth_success'), {
    agent_id: 'agent-one', expiresAt: claimsOf(renewed).exp, requestId: 'r', connectionId: client.success.connectionId
  })
  t.equal((await client.next('token_expiring')).expiresAt, claimsOf(renewed).exp, 'announced again before the new expiry')
  await until(() => Date.now() > claimsOf(token).exp * 1000)
  await assertAlive(client)
  t.strictSame(await client.closed, { code: 4002, reason: 'Token expired' })
  t.ok(Date.now() >= claimsOf(renewed).exp * 1000, 'not before its expiry')
  t.strictSame(undocumentedFrames('agents', client.all), [])
})

t.test('sockets: a token that ends closes its sockets, and no others, within a second', async t => {
  const registry = await build(t)
  const admin = await registry.admin()
  const mint = async () =>
    (await registry.post('/tokens/mint', { ...admin, body: { user_id: 'human', agent_id: 'human-one', role: 'user' } })).body.access_token
  const revoke = (body: object) => registry.post('/tokens/revoke', { ...admin, body })
  const revoked = { code: 4001, reason: 'Token revoked' }
  const ends: Array<[string, (token: string) => Promise<unknown>, object]> = [
    ['unregistered by the agent', token => registry.delete('/agents/agent-one', { token }), revoked],
    ['unregistered by an admin', () => registry.delete('/agents/agent-one', admin), revoked],
    ['unregistered by the host', () => registry.app.agentRegistry.unregister('agent-one'), revoked],
    ['its token revoked', token => revoke({ token }), revoked],
    ['its agent revoked', () => revoke({ agent_id: 'agent-one' }), revoked],
    ['replaced', () => registry.join(), { code: 4009, reason: 'Replaced by a newer instance' }]
  ]
  const bystander = await registry.agentSocket(await registry.join('agent-two'))
  for (const [name, end, expected] of ends) {
    const token = await registry.join()
    const sockets = [await registry.agentSocket(token), await registry.agentSocket(token, { observe: true })]
    await end(token)
    const answered = Date.now()
    for (const socket of sockets) t.strictSame(await socket.closed, expected, name)
    t.ok(Date.now() - answered < 1000, `${name}: at once`)
  }
  const sockets = [await registry.agentSocket(admin.token), await registry.agentSocket(await mint())]
  await registry.post('/auth/logout', admin)
  for (const socket of sockets) t.strictSame(await socket.closed, { code: 4001, reason: 'Session ended' })
  await assertAlive(bystander)
})

t.test('sockets: an expired session closes its sockets', async t => {
  const registry = await build(t, { admin: { sessionTimeoutMs: 2500 } })
  const client = await registry.agentSocket((await registry.admin()).token)
  const { code } = await client.closed
  t.ok(code === 4001 || code === 4002, `closed with ${code}`)
})

async function ticketFor (registry: Harness, token: string, tier = 'agents'): Promise<string> {
  return (await registry.post('/ws-tickets', { token, body: { tier } })).body.ticket
}

/** Every way to send a token with the upgrade. */
const ways: Record<string, (registry: Harness, token: string) => Client> = {
  header: (registry, token) => registry.socket('/agents/ws', [], bearer(token)),
  subprotocol: (registry, token) => registry.socket('/agents/ws', ['agent-registry.json', `bearer.${token}`]),
  query: (registry, token) => registry.socket(`/agents/ws?token=${token}`)
}

async function userToken (registry: Harness, role = 'user', id = 'human-one'): Promise<string> {
  const { body } = await registry.post('/tokens/mint', { ...await registry.admin(), body: { user_id: id, agent_id: id, role } })
  return body.access_token
}

t.test('authentication: a token in the upgrade request is sufficient', async t => {
  const registry = await build(t)
  const token = await registry.join()
  for (const [way, open] of Object.entries(ways)) {
    const client = open(registry, token)
    t.match(await client.next(), { type: 'auth_success', agent_id: 'agent-one', role: 'agent' }, way)
    t.ok(Array.isArray(await client.next()), `${way}: the next frame is the list`)
    t.equal(client.ws.protocol, way === 'subprotocol' ? 'agent-registry.json' : '', `${way}: no secret is echoed`)
    t.strictSame(undocumentedFrames('agents', client.all), [])
  }
})

t.test('authentication: a bad token in the upgrade is accepted and closed with a specific code', async t => {
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

t.test('authentication: a header precedes a subprotocol, and both precede the query', async t => {
  const registry = await build(t)
  const token = await registry.join()
  const header = registry.socket('/agents/ws?token=bad', ['agent-registry.json', 'bearer.bad'], bearer(token))
  t.equal((await header.next()).type, 'auth_success')
  const subprotocol = registry.socket('/agents/ws?token=bad', ['agent-registry.json', `bearer.${token}`])
  t.equal((await subprotocol.next()).type, 'auth_success')
  t.equal((await registry.socket(`/agents/ws?token=${token}`, [], bearer('bad')).closed).code, 4001)
  t.equal((await registry.socket(`/agents/ws?ticket=bad&token=${token}`).closed).code, 4001, 'a ticket before a token')
  t.equal((await registry.socket(`/agents/ws?token=${token}&token=${token}`).closed).code, 4001, 'two tokens count as none')
  t.equal((await registry.socket('/agents/ws?token=').next()).type, 'auth_required', 'an empty token counts as none')
})

t.test('authentication: a token as the only subprotocol is refused with a reason', async t => {
  const registry = await build(t)
  const token = await registry.join()
  for (const path of ['/agents/ws', '/public/ws']) {
    const { status, text } = await registry.socket(path, [`bearer.${token}`]).refused
    t.equal(status, 400)
    t.match(JSON.parse(text), { type: '/problems/request-error', detail: /agent-registry\.json/ })
    t.notOk(text.includes(token))
  }
  t.equal((await registry.get('/agents/ws')).status, 400, 'a request that is not an upgrade')
})

t.test('tickets: one opens one socket of one tier while its principal is valid', async t => {
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
  t.strictSame(outcomes.sort(), [4001, 4001, 4001, 4001, 'auth_success'], 'one of five succeeds')
})

t.test('authentication: the first frame authenticates, and the answer has all that a client needs', async t => {
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

t.test('authentication: users and admins are accepted too, and tokens of removed agents are not', async t => {
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

t.test('authentication: each wrong first frame has its own text and reason', async t => {
  const registry = await build(t, { sockets: { maxUnauthenticatedPerAddress: 64 } })
  const token = await registry.join()
  const temp = await registry.tempToken('agent-two', keys.other)
  const wrong: Array<[string, unknown, string, string]> = [
    ['no token', {}, 'Token required', 'Authentication required'],
    ['an empty token', { token: '' }, 'Token required', 'Authentication required'],
    ['a token that is null', { token: null }, 'Token required', 'Authentication required'],
    ['a frame unknown to every tier', { type: 'nope' }, 'Token required', 'Authentication required'],
    ['auth without a token', { type: 'auth' }, 'Token required', 'Authentication required'],
    ['garbage', { token: 'garbage' }, 'Invalid token', 'Invalid token'],
    ['a prefix', { token: `Bearer ${token}` }, 'Invalid token', 'Invalid token'],
    ['a number', { token: 5 }, 'Invalid token', 'Invalid token'],
    ['an object', { token: { token } }, 'Invalid token', 'Invalid token'],
    ['no signature', { token: unsigned(token) }, 'Invalid token', 'Invalid token'],
    ['another secret', { token: forge(token, {}, 'another secret of thirty-two characters') }, 'Invalid token', 'Invalid token'],
    ['expired by seconds', { token: expired(token) }, 'Invalid token', 'Invalid token'],
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

t.test('authentication: an oversized frame, a binary frame or a ping does not end the attempt', async t => {
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

t.test('authentication: a silent socket is closed after the timeout, without a frame', async t => {
  const registry = await build(t, { agentsWs: { timeoutMs: 300 } })
  const client = registry.socket('/agents/ws')
  t.strictSame(await client.closed, { code: 1008, reason: 'Authentication timeout' })
  t.strictSame(client.all.map(({ type }) => type), ['auth_required'])
})

function hostPrincipal (more: Partial<Principal> = {}): Principal {
  return {
    type: 'user',
    role: 'user',
    subject: 'host-user',
    agentId: null,
    incarnation: null,
    tokenId: 'host-1',
    sessionId: null,
    expiresAt: null,
    scopes: [],
    keyDigest: null,
    ...more
  }
}

/** A host whose hook is slow and reports its calls. */
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

t.test('authentication: frames sent before and during it are handled after it, in order', async t => {
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

t.test('authentication: more frames than can be queued end the attempt', async t => {
  const registry = await build(t)
  const client = registry.socket('/agents/ws')
  await client.next('auth_required')
  for (let i = 0; i < 65; i++) client.send({ type: 'unwatch' })
  t.strictSame(await client.closed, { code: 1008, reason: 'Authentication required' })
})

t.test('authentication: a socket that closes while its token is checked leaves no state', async t => {
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

t.test('authentication: when the host does not answer in time an upgrade is refused, and a socket stays open', async t => {
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
