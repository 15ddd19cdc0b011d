import t, { type Test } from 'tap'
import { Value } from '@sinclair/typebox/value'
import { AgentInfo } from '../../../src/protocol/schemas/agent.js'
import { answerChecker, build, keys, problemOf, registration, until, type Answer, type Harness, type Json } from '../../support/harness.js'

const answers = answerChecker()

/** Registers with a temporary token, or with the given one. */
function registrar (registry: Harness) {
  return async (id: string, { key = keys.plain, token, more = {} }: { key?: string, token?: string, more?: object } = {}) =>
    registry.post('/agents/register', { token: token ?? await registry.tempToken(id, key), body: registration(id, more) })
}

const stateOf = async (registry: Harness, id: string, token: string) => (await registry.get(`/agents/${id}`, { token })).body.state

function isReplacement (t: Test, { status, body }: Answer, before: Json) {
  t.equal(status, 200)
  t.match(body, { created: false, agent_id: before.agent_id, lease_ms: before.lease_ms, heartbeat_every_ms: Number })
  t.ok(body.incarnation > before.incarnation)
  t.not(body.revision, before.revision)
}

function isTaken (t: Test, answer: Answer) {
  t.equal(answer.status, 409)
  t.equal(problemOf(t, answer), 'duplicate-agent')
}

t.test('registration: a client registers, unregisters and registers again as existing clients do', async t => {
  const registry = await build(t, {}, answers)
  const headers = {
    'user-agent': 'ARCPClient/2.1.2',
    'x-client-fingerprint': '7c9e6679-7425-40de-944b-e07fc1f90ae7',
    accept: '*/*',
    'accept-encoding': 'gzip, deflate'
  }
  const body = registration('client-one')
  const temp = await registry.post(
    '/auth/agent/request_temp_token', { headers, body: { agent_id: 'client-one', agent_type: 'testing', agent_key: keys.plain } }
  )
  t.ok(temp.body.temp_token)
  const { endpoint, capabilities } = body
  const compliance = await registry.post('/auth/agent/validate_compliance', {
    headers, token: temp.body.temp_token, body: { agent_id: 'client-one', agent_type: 'testing', endpoint, capabilities, metadata: {} }
  })
  t.equal(compliance.status, 400)
  t.match(compliance.body.detail, /not enabled/i)

  const registered = await registry.post('/agents/register', { headers, token: temp.body.temp_token, body })
  t.match(registered.body, {
    status: 'success', message: "Agent 'Agent One' registered successfully", agent_id: 'client-one', access_token: String, created: true
  })
  const token = registered.body.access_token
  const { body: info } = await registry.get('/agents/client-one?include_metrics=true', { headers, token })
  t.same([...Value.Errors(AgentInfo, info)], [])
  t.match(info, { ...body, status: 'alive', metrics: { agent_id: 'client-one' } })
  t.match(info.last_seen, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
  t.match((await registry.post('/agents/client-one/heartbeat', { headers, token })).body, {
    agent_id: 'client-one', status: 'success', metrics: null, last_seen: String
  })
  t.same((await registry.get('/agents', { headers, token })).body.map((agent: Json) => agent.agent_id), ['client-one'])
  t.same((await registry.get('/public/discover?limit=50&offset=0')).body.map((agent: Json) => agent.agent_id), ['client-one'])

  const gone = await registry.delete('/agents/client-one', { headers: { ...headers, 'content-type': 'application/json' }, token })
  t.same(gone.body, { status: 'success', message: 'Agent client-one unregistered successfully', unregistered_by: 'agent (self)' })
  t.equal(problemOf(t, await registry.get('/public/agent/client-one')), 'agent-not-found')
  const again = await registry.post('/agents/register', { headers, token, body })
  t.match(again.body, { status: 'success', created: true })
  t.equal((await registry.post('/agents/client-one/heartbeat', { headers, token: again.body.access_token })).status, 200)
})

t.test('a registered id', async t => {
  const registry = await build(t, {}, answers)
  const register = registrar(registry)
  const admin = await registry.admin()

  await t.test('registered id: the first registration is new, and returns its lease and heartbeat interval', async t => {
    const { body } = await register('agent-new')
    t.match(body, { created: true, revision: /^[\w-]+:\d+$/, incarnation: Number, lease_ms: 60_000, heartbeat_every_ms: Number })
    t.ok(body.heartbeat_every_ms >= 18_000 && body.heartbeat_every_ms <= 20_000, 'a third of the lease at most, different for each agent')
    t.same(Object.keys(body)
      .sort(), ['access_token', 'agent_id', 'created', 'heartbeat_every_ms', 'incarnation', 'lease_ms', 'message', 'revision', 'status'])
  })

  await t.test('registered id: the token of the agent may register it again at any time', async t => {
    const { body } = await register('agent-own')
    await registry.post('/agents/agent-own/heartbeat', { token: body.access_token })
    const { body: before } = await registry.get('/agents/agent-own', admin)
    const again = await register('agent-own', { token: body.access_token, more: { name: 'Newer' } })
    isReplacement(t, again, body)
    t.match((await registry.get('/agents/agent-own', admin)).body, {
      name: 'Newer', registered_at: before.registered_at, incarnation: again.body.incarnation
    })
  })

  await t.test('registered id: a shared key may not take it while it is starting or alive, whatever its owner', async t => {
    const { body } = await register('agent-alive')
    isTaken(t, await register('agent-alive'))
    isTaken(t, await register('agent-alive', { key: keys.other }))
    await registry.post('/agents/agent-alive/heartbeat', { token: body.access_token })
    isTaken(t, await register('agent-alive'))
    t.equal((await registry.get('/agents/agent-alive', admin)).body.incarnation, body.incarnation)
  })

  await t.test('registered id: the owning key may take it after its socket has closed, another key may not', async t => {
    const { body } = await register('agent-lost')
    const socket = await registry.agentSocket(body.access_token)
    isTaken(t, await register('agent-lost'))
    socket.terminate()
    await until(async () => await stateOf(registry, 'agent-lost', body.access_token) === 'suspect')
    isTaken(t, await register('agent-lost', { key: keys.other }))
    isReplacement(t, await register('agent-lost'), body)
  })

  await t.test('registered id: an exclusive key or an admin may take it at any time', async t => {
    const { body } = await register('agent-mine')
    const second = await register('agent-mine', { key: keys.exclusive })
    isReplacement(t, second, body)
    isReplacement(t, await registry.post('/agents/register', { ...admin, body: registration('agent-mine') }), second.body)
  })

  await t.test('registered id: another agent, a user, or a temporary token for another id may not take it', async t => {
    const { body: minted } = await registry.post('/tokens/mint', { ...admin, body: { user_id: 'us', agent_id: 'agent-mine' } })
    const other = await register('agent-mine', { token: await registry.agent('agent-other') })
    t.equal(problemOf(t, other), 'insufficient-permissions')
    t.match(
      other.body, { status: 403, detail: 'Agents can only register themselves', agent_id: 'agent-other', request_agent_id: 'agent-mine' }
    )
    t.equal(problemOf(t, await register('agent-mine', { token: minted.access_token })), 'insufficient-permissions')
    t.equal(problemOf(t, await register('agent-free', { token: await registry.tempToken('agent-else') })), 'insufficient-permissions')
  })

  await t.test('registered id: a new instance ends the tokens and sockets of the previous one', async t => {
    const { body: { access_token: token } } = await register('agent-old')
    const socket = await registry.agentSocket(token)
    const { body: { access_token: newer } } = await register('agent-old', { token })
    t.equal((await socket.closed).code, 4009)
    const late = await registry.post('/agents/agent-old/heartbeat', { token })
    t.equal(late.status, 409)
    t.equal(problemOf(t, late), 'stale-incarnation')
    const elsewhere = [
      await registry.get('/agents', { token }), await registry.delete('/agents/agent-old', { token }),
      await registry.post('/tokens/refresh', { token }),
      await registry.patch('/agents/agent-old', { token, body: { name: 'Late' } }),
      await registry.post('/agents/agent-old/status', { token, body: { status: 'alive' } }),
      await registry.post('/ws-tickets', { token }), await register('agent-old', { token })
    ]
    for (const answer of elsewhere) t.equal(problemOf(t, answer), 'token-invalid')
    t.equal((await registry.post('/agents/agent-old/heartbeat', { token: newer })).status, 200)
  })

  await t.test('registered id: of two concurrent requests with temporary tokens one succeeds', async t => {
    const tokens = [await registry.tempToken('agent-race'), await registry.tempToken('agent-race')]
    const both = await Promise.all(tokens.map(token => register('agent-race', { token })))
    t.same(both.map(({ status }) => status).sort(), [200, 409])
    const own = both.find(({ status }) => status === 200)!.body.access_token
    const again = await Promise.all(Array.from({ length: 5 }, () => register('agent-race', { token: own })))
    const current = (await registry.get('/agents/agent-race', admin)).body.incarnation
    const winners = again.filter(({ status }) => status === 200).map(({ body }) => body.incarnation)
    t.equal(Math.max(...winners), current)
    t.equal(new Set(winners).size, winners.length)
  })
})

t.test('an id with an expired lease', async t => {
  const registry = await build(t, { lease: { durationMs: 300, retentionMs: 60_000 } }, answers)
  const register = registrar(registry)
  const isDead = (id: string, token: string) => until(async () => await stateOf(registry, id, token) === 'dead')

  for (const [name, key] of [['its own key', keys.plain], ['another key', keys.other]] as const) {
    await t.test(`expired lease: the id may be registered again with ${name}`, async t => {
      const id = `agent-${key.slice(0, 5)}`
      const { body } = await register(id)
      await isDead(id, body.access_token)
      t.match((await registry.get(`/agents/${id}`, { token: body.access_token })).body, { status: 'dead' })
      t.equal(problemOf(t, await registry.get(`/public/agent/${id}`)), 'agent-not-available')
      isReplacement(t, await register(id, { key }), body)
    })
  }

  await t.test('expired lease: a heartbeat revives the agent', async t => {
    const { body: { access_token: token } } = await register('agent-back')
    await isDead('agent-back', token)
    t.equal((await registry.post('/agents/agent-back/heartbeat', { token })).status, 200)
    t.equal((await registry.get('/public/agent/agent-back')).status, 200)
  })
})

t.test('removed agent: it finds no record, and registers again with its token', async t => {
  const registry = await build(t, { lease: { durationMs: 200, retentionMs: 100, cleanupIntervalMs: 50 } }, answers)
  const token = await registry.agent()
  await until(async () => (await registry.get('/agents/agent-one', { token })).status === 404)
  t.equal(problemOf(t, await registry.post('/agents/agent-one/heartbeat', { token })), 'agent-not-found')
  t.match((await registrar(registry)('agent-one', { token })).body, { created: true })
})

t.test('agent keys', async t => {
  const team = { key: 'team-key-00001', ids: ['team-*', 'single'], types: ['TESTING', 'security'], capabilities: ['read', 'write'] }
  const small = { key: 'small-key-0001', maxAgents: 2 }
  const registry = await build(t, { agentKeys: [team, small, keys.plain], limits: { maxAgents: 6 } }, answers)
  const register = registrar(registry)
  const admin = await registry.admin()
  const registerAsTeam = (id: string, more: object = {}) => register(id, { key: team.key, more: { capabilities: ['read'], ...more } })

  await t.test('agent keys: a key covers its configured ids, types and capabilities', async t => {
    for (const id of ['team-1', 'single']) t.equal((await registerAsTeam(id)).status, 200)
    for (const [id, more] of [
      ['teams', {}], ['single-2', {}], ['team-2', { agent_type: 'monitoring' }], ['team-2', { capabilities: ['read', 'delete'] }]
    ] as const) {
      const answer = await registerAsTeam(id, more)
      t.equal(answer.status, 403)
      t.equal(problemOf(t, answer), 'insufficient-permissions')
      t.match(answer.body.detail, /^This key does not cover/)
    }
  })

  await t.test('agent keys: its limits apply to later changes and re-registrations of its agents', async t => {
    const { body: { access_token: token } } = await registerAsTeam('team-3')
    const beyond = { capabilities: ['delete'] }
    t.equal(problemOf(t, await registry.patch('/agents/team-3', { token, body: beyond })), 'insufficient-permissions')
    t.equal(problemOf(t, await register('team-3', { token, more: beyond })), 'insufficient-permissions')
    await registry.delete('/agents/team-3', { token })
    t.equal(problemOf(t, await register('team-3', { token, more: beyond })), 'insufficient-permissions')
    const again = await register('team-3', { token, more: { capabilities: ['write'] } })
    t.equal(again.status, 200)
    const { body: refreshed } = await registry.post('/tokens/refresh', { token: again.body.access_token })
    await registry.delete('/agents/team-3', { token: again.body.access_token })
    t.equal(problemOf(t, await register('team-3', { token: refreshed.access_token, more: beyond })), 'insufficient-permissions')
  })

  await t.test('agent keys: the number of agents per key is limited', async t => {
    const bySmall = (id: string) => register(id, { key: small.key })
    const tokens = [await bySmall('small-1'), await bySmall('small-2')].map(({ body }) => body.access_token)
    const third = await bySmall('small-3')
    t.equal(third.status, 429)
    t.equal(problemOf(t, third), 'quota-exceeded')
    t.match(third.body, { retry_after: Number, detail: /key/ })
    t.equal(third.headers.get('retry-after'), String(third.body.retry_after))
    await registry.delete('/agents/small-1', { token: tokens[0] })
    t.equal((await bySmall('small-3')).status, 200)
  })

  await t.test('agent keys: a full registry admits only agents that are registered', async t => {
    await register('last-one')
    t.equal((await register('last-two')).status, 200)
    const over = await register('too-many')
    t.equal(problemOf(t, over), 'quota-exceeded')
    t.match(over.body.detail, /full/)
    t.equal(problemOf(t, await registry.post('/agents/register', { ...admin, body: registration('too-many') })), 'quota-exceeded')
    t.equal((await registry.post('/agents/register', { ...admin, body: registration('last-one') })).status, 200)
  })
})

const forTemporary: Array<[method: string, path: string]> = [
  ['GET', '/agents'], ['GET', '/agents/agent-one'], ['PATCH', '/agents/agent-one'], ['POST', '/agents/agent-one/heartbeat'],
  ['POST', '/agents/agent-one/status'], ['GET', '/agents/stats'], ['POST', '/tokens/refresh'], ['POST', '/tokens/mint'],
  ['POST', '/tokens/revoke'], ['POST', '/ws-tickets'], ['POST', '/auth/logout'], ['GET', '/auth/session_status']
]

t.test('temporary tokens in requests', async t => {
  const registry = await build(t, {}, answers)
  const register = registrar(registry)

  await t.test('temporary tokens: a repeated request gets the same response, during and after the first', async t => {
    const token = await registry.tempToken('twice-one')
    const first = await register('twice-one', { token })
    const later = await register('twice-one', { token })
    t.same(later.body, first.body)
    const other = await registry.tempToken('twice-two')
    const both = await Promise.all(Array.from({ length: 5 }, () => register('twice-two', { token: other })))
    for (const { status, body } of both) t.same([status, body], [200, both[0]!.body])
  })

  await t.test('temporary tokens: a success spends the token, and a different request is refused', async t => {
    const token = await registry.tempToken('spent-one')
    await register('spent-one', { token })
    const answer = await register('spent-one', { token, more: { endpoint: 'http://127.0.0.1:10' } })
    t.equal(answer.status, 401)
    t.equal(problemOf(t, answer), 'token-invalid')
    t.equal(problemOf(t, await registry.delete('/agents/spent-one', { token })), 'token-invalid')
  })

  await t.test('temporary tokens: a failure does not spend the token', async t => {
    const token = await registry.tempToken('tried-one')
    t.equal((await register('tried-one', { token, more: { name: 'x' } })).status, 422)
    t.equal((await register('tried-two', { token })).status, 403)
    t.equal((await register('tried-one', { token })).status, 200)
    const second = await registry.tempToken('tried-one')
    isTaken(t, await register('tried-one', { token: second }))
    t.equal((await registry.delete('/agents/tried-one', { token: second })).status, 200)
  })

  await t.test('temporary tokens: they delete only agents of their key, and a repeat gets the same response', async t => {
    const { body: { access_token: own } } = await register('owned-one')
    const strange = await registry.delete('/agents/owned-one', { token: await registry.tempToken('owned-one', keys.other) })
    t.equal(problemOf(t, strange), 'insufficient-permissions')
    const elsewhere = await registry.delete('/agents/owned-one', { token: await registry.tempToken('owned-two') })
    t.equal(problemOf(t, elsewhere), 'insufficient-permissions')
    t.match(elsewhere.body, { agent_id: 'owned-two', target_agent_id: 'owned-one' })
    const token = await registry.tempToken('owned-one')
    const first = await registry.delete('/agents/owned-one', { token })
    const again = await registry.delete('/agents/owned-one', { token, raw: '' })
    t.match(first.body, { status: 'success', unregistered_by: 'agent (self)' })
    t.same([again.status, again.body], [200, first.body])
    t.equal(problemOf(t, await register('owned-one', { token: own })), 'token-invalid')
    t.equal(problemOf(t, await register('owned-one', { token })), 'token-invalid')
    t.equal(problemOf(t, await registry.delete('/agents/owned-one', { token: await registry.tempToken('owned-one') })), 'agent-not-found')
  })

  await t.test('temporary tokens: one issued before an admin removed the agent is refused', async t => {
    const admin = await registry.admin()
    await register('ended-one')
    const token = await registry.tempToken('ended-one')
    await registry.delete('/agents/ended-one', admin)
    t.equal(problemOf(t, await registry.delete('/agents/ended-one', { token })), 'token-invalid')
    t.equal(problemOf(t, await register('ended-one', { token })), 'token-invalid')
    t.equal((await register('ended-one')).status, 200)
  })

  await t.test('temporary tokens: they are refused on all other routes', async t => {
    const token = await registry.tempToken()
    for (const [method, path] of forTemporary) {
      const answer = await registry.call(method, path, { token })
      t.equal(answer.status, 403, `${method} ${path}`)
      t.equal(problemOf(t, answer), 'insufficient-permissions')
    }
    const socket = registry.socket('/agents/ws')
    await socket.next('auth_required')
    socket.send({ token })
    t.match(await socket.next('auth_error'), { message: 'Insufficient permissions' })
    t.equal((await socket.closed).code, 1008)
  })
})

t.test('unregistering', async t => {
  const registry = await build(t, {}, answers)
  const register = registrar(registry)
  const admin = await registry.admin()
  const rest = async (id: string, token: string) => [
    await registry.get('/agents', { token }), await registry.post(`/agents/${id}/heartbeat`, { token }),
    await registry.delete(`/agents/${id}`, { token }),
    await registry.post('/tokens/refresh', { token }), await registry.post('/ws-tickets', { token })
  ]

  await t.test('unregistering: an agent that unregisters may only register itself again', async t => {
    const { body: { access_token: token } } = await register('leaver-1')
    await registry.delete('/agents/leaver-1', { token })
    for (const answer of await rest('leaver-1', token)) t.equal(problemOf(t, answer), 'token-invalid')
    t.equal(problemOf(t, await register('leaver-2', { token })), 'insufficient-permissions')
    const { body } = await register('leaver-1', { token })
    t.match(body, { created: true })
    t.equal((await registry.get('/agents', { token: body.access_token })).status, 200)
    const byKey = await registry.delete('/agents/leaver-1', { token: await registry.tempToken('leaver-1') })
    t.equal(byKey.status, 200, 'the owning key still may')
  })

  await t.test('unregistering: a removal by an admin ends all rights, also of refreshed and minted tokens', async t => {
    const { body: { access_token: token } } = await register('removed-1')
    const { body: refreshed } = await registry.post('/tokens/refresh', { token })
    const {
      body: minted
    } = await registry.post('/tokens/mint', { ...admin, body: { user_id: 'removed-1', agent_id: 'removed-1', role: 'agent' } })
    const answer = await registry.delete('/agents/removed-1', admin)
    t.equal(answer.body.unregistered_by, 'admin (admin)')
    for (const ended of [token, refreshed.access_token, minted.access_token]) {
      for (const each of await rest('removed-1', ended)) t.equal(problemOf(t, each), 'token-invalid')
      t.equal(problemOf(t, await register('removed-1', { token: ended })), 'token-invalid')
    }
  })

  await t.test('unregistering: an unknown agent or another agent is refused', async t => {
    const token = await registry.agent('present-1')
    t.equal(problemOf(t, await registry.delete('/agents/absent-1', admin)), 'agent-not-found')
    const other = await registry.delete('/agents/absent-1', { token })
    t.equal(problemOf(t, other), 'insufficient-permissions')
    t.match(other.body, { agent_id: 'present-1', target_agent_id: 'absent-1' })
    t.equal(problemOf(t, await registry.delete('/agents/present-1')), 'authentication-failed')
  })
})

t.test('responses: they match their schemas', async t => { t.same(answers.findings, []) })
