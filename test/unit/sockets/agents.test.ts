import t from 'tap'
import { build, registration, until, type Client, type Harness, type Json } from '../../support/harness.js'
import { assertAlive, expired, nextWhere, refusalOf, strangeFrames } from './helper.js'

const bearer = (token: string, localAddress?: string) => ({ headers: { authorization: `Bearer ${token}` }, ...(localAddress && { localAddress }) })
const ids = (list: Json): string[] => list.map((agent: Json) => agent.agent_id)
const claimsOf = (token: string) => JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString())

async function withoutToken (registry: Harness, localAddress = '127.0.0.1'): Promise<Client> {
  const client = registry.socket('/agents/ws', [], { localAddress })
  await Promise.race([client.next('auth_required'), client.refused])
  return client
}

const isIn = ({ all }: Client) => all.length > 0

t.test('sockets without a token have places of their own, per tier and per address', async t => {
  const registry = await build(t, { sockets: { maxUnauthenticated: 3, maxUnauthenticatedPerAddress: 2 } })
  const token = await registry.join()
  const member = await registry.agentSocket(token)
  const [first, second, third] = [await withoutToken(registry), await withoutToken(registry), await withoutToken(registry)]
  t.strictSame([first, second, third].map(isIn), [true, true, false], 'two of an address')
  const { status, headers } = await third.refused
  t.strictSame([status, headers['retry-after'], headers.connection], [503, '5', 'close'])
  const others = [await withoutToken(registry, '127.0.0.2'), await withoutToken(registry, '127.0.0.3')]
  t.strictSame(others.map(isIn), [true, false], 'three of the tier')
  t.equal((await registry.socket('/agents/ws?token=bad').refused).status, 503, 'a bad token takes such a place too')
  const known = registry.socket('/agents/ws', [], bearer(token))
  t.equal((await known.next()).type, 'auth_success', 'who says who it is does not')
  await assertAlive(member)
  await registry.watcher()
  first.send({ token })
  await first.next('auth_success')
  t.ok(isIn(await withoutToken(registry)), 'a place is free once its holder is known')
  second.close()
  await second.closed
  await until(async () => isIn(await withoutToken(registry)))
})

t.test('as many as the tier takes come in, and the next is refused on the upgrade', async t => {
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
  t.strictSame(await waiting[0]!.closed, { code: 1013, reason: 'Too many connections' }, 'full since it came')
  const held = known.find(outcome => 'ws' in outcome) as Client
  await assertAlive(held)
  held.close(1000)
  await held.closed
  waiting[1]!.send({ token })
  t.equal((await waiting[1]!.next()).type, 'auth_success')
})

t.test('the list is a bare array of all agents, and comes again on every change', async t => {
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
  t.strictSame(strangeFrames('agents', client.all), [])
})

t.test('twenty registrations at the same time are a few lists', async t => {
  const registry = await build(t, { agentsWs: { intervalMs: 400 } })
  const client = await registry.agentSocket(await registry.join())
  const started = Date.now()
  await Promise.all(Array.from({ length: 20 }, (_, i) => registry.register(`agent-${i}`)))
  await nextWhere(client, 'list', list => list.length === 21)
  const lists = client.all.filter(Array.isArray).length
  t.ok(lists <= 3 + Math.ceil((Date.now() - started) / 400), `${lists} lists`)
})

t.test('a list that is cut is followed by what is missing', async t => {
  const registry = await build(t, { sockets: { maxAgentsPerUpdate: 3 } })
  const tokens: string[] = []
  for (let i = 0; i < 5; i++) tokens.push(await registry.join(`agent-${i}`))
  const client = registry.socket('/agents/ws', [], bearer(tokens[0]!))
  t.strictSame(ids(await client.next('list')), ['agent-4', 'agent-3', 'agent-2'], 'the newest first')
  t.strictSame(await client.next(), { type: 'agents_truncated', total_count: 5, sent: 3, revision: registry.app.agentRegistry.revision })
  await registry.patch('/agents/agent-1', { token: tokens[1]!, body: { name: 'Renamed' } })
  t.strictSame(ids(await nextWhere(client, 'list', list => list[0].name === 'Renamed')), ['agent-1', 'agent-4', 'agent-3'])
  t.match(await client.next('agents_truncated'), { total_count: 5, sent: 3 })
  t.strictSame(strangeFrames('agents', client.all), [])
})

t.test('a status is what the agent asked for, and acknowledged when that was asked for', async t => {
  const registry = await build(t)
  const client = await registry.agentSocket(await registry.join())
  const watcher = await registry.watcher()
  for (const status of ['draining', 'alive', 'maintenance', 'alive'] as const) {
    client.send({ type: 'status', status, requestId: status })
    t.strictSame(await client.next('ack'), { type: 'ack', requestId: status })
    t.match(registry.app.agentRegistry.get('agent-one'), { state: status, status: 'alive' })
    await nextWhere(watcher, 'agents_update', ({ data }) => data.total_count === (status === 'alive' ? 1 : 0))
    await assertAlive(client)
    t.equal(registry.app.agentRegistry.get('agent-one')!.state, status, 'what was asked for lasts')
  }
  for (const status of ['dead', 'suspect', 'starting', 5, undefined]) {
    t.match(await refusalOf(client, { type: 'status', status, requestId: 'r' }), { code: 'invalid_frame', requestId: 'r' })
  }
})

t.test('goodbye unregisters, is acknowledged and ends every socket of the agent', async t => {
  const registry = await build(t)
  const token = await registry.join()
  const [client, other, watcher] = [await registry.agentSocket(token), await registry.agentSocket(token), await registry.watcher()]
  client.send({ type: 'goodbye', requestId: 'bye' })
  t.strictSame(await client.next('ack'), { type: 'ack', requestId: 'bye' })
  t.strictSame(await client.closed, { code: 1000, reason: 'Goodbye' })
  t.strictSame(await other.closed, { code: 4001, reason: 'Token revoked' })
  t.equal((await watcher.next('agents_update')).data.total_count, 0)
  t.equal(registry.app.agentRegistry.get('agent-one'), undefined)
  t.equal((await registry.post('/agents/register', { token, body: registration() })).status, 200, 'its own id is still its own')
})

t.test('frames after goodbye are not acted on', async t => {
  const registry = await build(t)
  const client = await registry.agentSocket(await registry.join())
  client.send({ type: 'goodbye', requestId: 'one' })
  client.send({ type: 'goodbye', requestId: 'two' })
  client.send({ type: 'status', status: 'alive', requestId: 'three' })
  await client.closed
  t.strictSame(client.all.filter(({ type }) => type === 'ack' || type === 'error'), [{ type: 'ack', requestId: 'one' }])
})

t.test('a new token takes the place of the old one on the open socket', async t => {
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
    t.strictSame(await refusalOf(client, { type: 'auth', token: text, requestId: 'r' }), { type: 'error', code: 'action_not_permitted', message, requestId: 'r' }, name)
  }
  let renewed = token
  await until(async () => {
    renewed = (await registry.post('/tokens/refresh', { token })).body.access_token
    return claimsOf(renewed).exp > claimsOf(token).exp
  })
  client.send({ type: 'auth', token: renewed, requestId: 'r' })
  t.match(await client.next('auth_success'), { agent_id: 'agent-one', expiresAt: claimsOf(renewed).exp, requestId: 'r', connectionId: client.success.connectionId })
  t.equal((await client.next('token_expiring')).expiresAt, claimsOf(renewed).exp, 'told again of the new end')
  await until(() => Date.now() > claimsOf(token).exp * 1000)
  await assertAlive(client)
  t.strictSame(await client.closed, { code: 4002, reason: 'Token expired' })
  t.ok(Date.now() >= claimsOf(renewed).exp * 1000, 'not before its end')
  t.strictSame(strangeFrames('agents', client.all), [])
})

t.test('whatever ends a token ends its sockets within a second, and only those', async t => {
  const registry = await build(t)
  const admin = await registry.admin()
  const mint = async () => (await registry.post('/tokens/mint', { ...admin, body: { user_id: 'human', agent_id: 'human-one', role: 'user' } })).body.access_token
  const revoke = (body: object) => registry.post('/tokens/revoke', { ...admin, body })
  const revoked = { code: 4001, reason: 'Token revoked' }
  const ends: Array<[string, (token: string) => Promise<unknown>, object]> = [
    ['unregistered by itself', token => registry.delete('/agents/agent-one', { token }), revoked],
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

t.test('a session that runs out ends its sockets', async t => {
  const registry = await build(t, { admin: { sessionTimeoutMs: 2500 } })
  const client = await registry.agentSocket((await registry.admin()).token)
  const { code } = await client.closed
  t.ok(code === 4001 || code === 4002, `closed with ${code}`)
})
