import t from 'tap'
import { Value } from '@sinclair/typebox/value'
import { AgentInfo } from '../../../src/protocol/schemas/agent.js'
import { SearchResult } from '../../../src/protocol/schemas/search.js'
import { build, keys, registration, serve, until, type Answer, type Call, type Harness, type Json } from '../../support/harness.js'

// What the tests of existing servers assert, and what existing clients need of each answer.

const requiredKeys = [
  'agent_id', 'name', 'agent_type', 'endpoint', 'capabilities', 'context_brief', 'version', 'owner', 'public_key', 'metadata', 'communication_mode', 'status', 'last_seen', 'registered_at'
]
const idsOf = ({ body }: Answer): string[] => body.map((agent: Json) => agent.agent_id)

/** Six agents of two types, one of which is dead. */
async function fleet (registry: Harness): Promise<void> {
  for (const [index, type] of ['testing', 'security', 'testing', 'security', 'testing'].entries()) {
    await registry.join(`agent-${index}`, { agent_type: type, capabilities: index % 2 ? ['scan', 'report'] : ['test'], context_brief: `Agent that ${'really '.repeat(index)}tests things` })
  }
}

t.test('discovery', async t => {
  const registry = await build(t)
  await fleet(registry)
  const discover = (query = '') => registry.get(`/public/discover${query}`)

  await t.test('is a bare list of agents that are alive, each with all that clients require', async t => {
    const { status, body } = await discover()
    t.equal(status, 200)
    t.ok(Array.isArray(body))
    t.equal(body.length, 5)
    for (const agent of body) {
      t.same(requiredKeys.filter(key => agent[key] === undefined || agent[key] === null), [])
      t.equal(agent.status, 'alive')
      t.same([...Value.Errors(AgentInfo, agent)], [])
    }
  })

  await t.test('is filtered by type and by capabilities', async t => {
    t.same(idsOf(await discover('?agent_type=security')).sort(), ['agent-1', 'agent-3'])
    t.same(idsOf(await discover('?capabilities=test')).sort(), ['agent-0', 'agent-2', 'agent-4'])
    t.same(idsOf(await discover('?agent_type=testing&capabilities=scan')), [])
  })

  await t.test('comes in pages that are disjoint', async t => {
    const [first, second] = [idsOf(await discover('?limit=2&offset=0')), idsOf(await discover('?limit=2&offset=2'))]
    t.equal(new Set([...first, ...second]).size, 4)
    t.equal((await discover('?limit=150')).status, 422)
  })

  await t.test('does not show who is dead', async t => {
    const short = await build(t, { lease: { durationMs: 300 } })
    await short.join()
    await until(() => short.app.agentRegistry.get('agent-one')!.status === 'dead')
    t.same((await short.get('/public/discover')).body, [])
    t.match(await short.get('/public/agent/agent-one'), { status: 404, body: { type: /agent-not-available$/ } })
  })
})

t.test('search is a list with what clients require, best first, and none below the least similarity', async t => {
  const registry = await build(t)
  await fleet(registry)
  await registry.join('agent-far', { context_brief: 'Sends a parcel after long tests of patience' })
  const search = async (more: object): Promise<Json[]> => (await registry.post('/public/search', { body: { query: 'agent that tests things', top_k: 10, ...more } })).body
  const found = await search({ min_similarity: 0.5 })
  t.ok(found.length > 1)
  const similarities = found.map(({ similarity }) => similarity)
  t.same(similarities, [...similarities].sort((a, b) => b - a))
  for (const result of found) {
    t.same([...Value.Errors(SearchResult, result)], [])
    for (const key of ['id', 'name', 'url', 'capabilities', 'similarity']) t.ok(key in result, key)
  }
  for (const least of [0.6, 0.9]) t.ok((await search({ min_similarity: least })).every(({ similarity }) => similarity >= least))
  t.equal((await registry.post('/public/search', { body: { query: 'x' } })).status, 422)
})

t.test('a single agent has every member of an agent, and an unknown one is 404', async t => {
  const registry = await build(t)
  await registry.join()
  const { status, body } = await registry.get('/public/agent/agent-one')
  t.equal(status, 200)
  t.same(Object.keys(AgentInfo.properties).filter(key => !(key in body)), [])
  t.match(await registry.get('/public/agent/nobody-here'), { status: 404, body: { detail: 'Agent nobody-here not found' } })
})

t.test('a request to connect is 200, 502 or 504, and 422 when it is not one', async t => {
  const registry = await build(t)
  await registry.join('agent-up', { endpoint: await serve(t, (_request, response) => { response.end() }) })
  await registry.join('agent-down', { endpoint: 'http://127.0.0.1:9' })
  const connect = (id: string, body: object) => registry.post(`/public/connect/${id}`, { body })
  const request = { user_id: 'ann', user_endpoint: 'https://ann.example', display_name: 'Ann', additional_info: {} }
  t.equal((await connect('agent-up', request)).status, 200)
  t.equal((await connect('agent-down', request)).status, 502)
  t.equal((await connect('agent-up', { user_id: 'ann' })).status, 422)
  t.equal((await connect('nobody-here', request)).status, 404)
})

t.test('the public socket says what it does, answers pings and pages', async t => {
  const registry = await build(t)
  await fleet(registry)
  const client = registry.socket('/public/ws')
  client.opened.then(() => client.send({ type: 'get_discovery', page: 1, page_size: 2 }))
  const welcome = await client.next()
  t.equal(welcome.type, 'welcome')
  t.ok(welcome.features.includes('agent_updates'))
  const { data } = await client.next('discovery_data')
  t.match(data.pagination, { current_page: 1, page_size: 2, total_agents: 5, total_pages: 3, has_next: true, has_previous: false, next_page: 2, previous_page: null })
  t.equal(data.agents.length, 2)
  client.send({ type: 'ping' })
  t.type((await client.next('pong')).timestamp, 'number')
  client.send(' PING\n')
  t.equal(await client.next('pong'), 'pong')
})

t.test('the service says its name, its version and its limits, and counts types', async t => {
  const registry = await build(t)
  await fleet(registry)
  t.match((await registry.get('/public/info')).body, { service: String, version: '2.1.2', limits: { discover_max_limit: 100, search_max_limit: 50 } })
  t.match((await registry.get('/public/stats')).body, { alive_agents: 5, total_agents: 5, agent_types: 2, system_status: 'operational' })
  t.match((await registry.get('/.well-known/jwks.json')).headers.get('cache-control'), /max-age=\d+/)
})

t.test('a client that still has a token registers again: it is told that validation is off, whatever its token', async t => {
  const registry = await build(t)
  const { body: first } = await registry.register()
  const admin = await registry.admin()
  for (const call of [{ token: first.access_token }, admin, { token: 'outdated' }] as Call[]) {
    const compliance = await registry.post('/auth/agent/validate_compliance', { ...call, body: { agent_id: 'agent-one', agent_type: 'testing', endpoint: 'http://127.0.0.1:9', capabilities: ['cap one'], metadata: {} } })
    t.match(compliance, { status: 400, body: { detail: /not enabled/ } })
  }
  const again = await registry.post('/agents/register', { token: first.access_token, body: registration() })
  t.match(again, { status: 200, body: { status: 'success', agent_id: 'agent-one', created: false } })
  t.equal((await registry.get('/agents/agent-one?include_metrics=true', { token: again.body.access_token })).status, 200)
  t.ok(again.body.heartbeat_every_ms * 2 <= again.body.lease_ms, 'one heartbeat may get lost')
})

t.test('a client whose heartbeat loop outlives its record is told so, and comes back with the token it has', async t => {
  const registry = await build(t, { lease: { durationMs: 300, retentionMs: 200, cleanupIntervalMs: 50, preservation: false } })
  const token = await registry.agent()
  await until(async () => (await registry.post('/agents/agent-one/heartbeat', { token })).status === 200)
  await until(() => registry.app.agentRegistry.get('agent-one') === undefined)
  t.match(await registry.post('/agents/agent-one/heartbeat', { token }), { status: 404, body: { type: /agent-not-found$/ } })
  const again = await registry.post('/agents/register', { token, body: registration() })
  t.equal(again.status, 200)
  t.equal((await registry.post('/agents/agent-one/heartbeat', { token: again.body.access_token })).status, 200)
})

const refusals: Array<[status: number, method: string, path: string, call: Call]> = [
  [400, 'POST', '/auth/agent/request_temp_token', { body: {} }],
  [401, 'POST', '/auth/agent/request_temp_token', { body: { agent_id: 'agent-one', agent_type: 'testing', agent_key: 'an-invalid-key' } }],
  [401, 'GET', '/agents', {}],
  [401, 'POST', '/agents/register', { body: registration() }],
  [404, 'GET', '/public/agent/nobody-here', {}],
  [405, 'PUT', '/public/stats', {}],
  [409, 'POST', '/agents/register', { body: registration() }],
  [413, 'POST', '/auth/login', { raw: JSON.stringify('x'.repeat(2_000)) }],
  [415, 'POST', '/auth/login', { raw: 'a=b', headers: { 'content-type': 'text/csv' } }],
  [422, 'GET', '/public/discover?limit=150', {}]
]

t.test('whatever is refused is an object whose detail is for people: clients show it, or look into it', async t => {
  const registry = await build(t, { limits: { maxBodyBytes: 1_000 } })
  await registry.register()
  for (const [status, method, path, call] of refusals) {
    const token = status === 409 ? await registry.tempToken('agent-one', keys.other) : undefined
    const answer = await registry.call(method, path, { ...call, token })
    t.equal(answer.status, status, `${method} ${path}`)
    t.type(answer.body.detail, 'string')
    t.ok(answer.body.detail.length > 3)
  }
})

t.test('what documents of existing servers promise and these never did is not there either', async t => {
  const registry = await build(t)
  const { body: joined } = await registry.register()
  t.same(['token', 'data', 'agent'].filter(key => key in joined), [])
  t.equal(joined.status, 'success')
  const token: string = joined.access_token
  t.ok(Array.isArray((await registry.get('/agents', { token })).body), 'a bare list, not a page in an object')
  t.ok(Array.isArray((await registry.get('/agents?limit=1', { token })).body), 'when paged too')
  t.same(Object.keys((await registry.post('/agents/agent-one/heartbeat', { token })).body).sort(), ['agent_id', 'last_seen', 'metrics', 'status'])
  const [hit] = (await registry.post('/public/search', { body: { query: 'agent', limit: 0, threshold: 2 } })).body
  t.ok('similarity' in hit && !('similarity_score' in hit))
  t.equal((await registry.post('/tokens/validate', { body: { token } })).status, 422, 'the token is in the query')
  t.equal((await registry.post('/tokens/refresh', { body: { token } })).status, 401, 'the token is in the header')
  t.type((await registry.get('/public/stats')).body.agent_types, 'number')
  const nested = await registry.post('/agents/agent-one/metrics', { token, body: { metrics: { success_rate: 1 } } })
  t.match(nested.body.metrics, { success_rate: 0 }, 'the answer shows that nothing of it was understood')
})
