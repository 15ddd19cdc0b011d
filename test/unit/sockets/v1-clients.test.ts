import { SignallingClient } from '@metered-ca/realtime'
import { Value } from '@sinclair/typebox/value'
import fastify from 'fastify'
import type { WebSocket } from 'ws'
import t, { type Test } from 'tap'
import agentRegistry from '../../../src/index.js'
import { AgentInfo } from '../../../src/protocol/schemas/agent.js'
import { SearchResult } from '../../../src/protocol/schemas/search.js'
import {
  type Answer, build, type Call, freePort, type Harness, type Json, keys, registration, serve, until, withDefaults
} from '../../support/harness.js'
import { nextWhere } from './helper.js'
import { buildV1, peer, peerToken, publishableKey, sdkClient, sdkOptions, v1Options } from './v1-helper.js'

/** Events of an SDK client, in order. */
function hear (client: SignallingClient): Array<[event: string, payload: Json]> {
  const received: Array<[string, Json]> = []
  for (const event of ['connected', 'disconnected', 'message', 'direct', 'presence', 'going-away', 'server-error'] as const) {
    client.on(event, payload => { received.push([event, payload]) })
  }
  return received
}

const sourceOf = (registry: Harness, peerId: string, more: object = {}) => ({ token: () => peerToken(registry, peerId, more) })

t.test('SDK signalling client', async t => {
  const registry = await buildV1(t)

  await t.test('SDK: it connects, subscribes, publishes, sends, and reads presence', async t => {
    const client = sdkClient(
      t, registry, sourceOf(registry, 'alice', { metadata: { iceServers: [{ urls: ['stun:stun.example.com:3478'] }] } })
    )
    const received = hear(client)
    await client.connect()
    t.match(received[0], ['connected', { peerId: 'alice', isReconnect: false, maxMessageSize: 65_536, iceServers: [{}] }])
    await client.subscribe('app/room-1', { includeSenderMetadata: true })
    await until(() => received.length > 1)
    t.match(received[1], ['presence', { channel: 'app/room-1', joined: [{ peerId: 'alice' }], left: [] }])
    const bob = await peer(registry, 'bob', { peerMetadata: { username: 'Bob' } })
    bob.send({ type: 'subscribe', channel: 'app/room-1' })
    await until(() => received.length > 2)
    t.match(received[2], ['presence', { joined: [{ peerId: 'bob', metadata: { username: 'Bob' } }] }])
    await client.publish('app/room-1', { hello: 'all' })
    t.match(await bob.next('message'), { from: 'alice', data: { hello: 'all' } })
    await client.send('bob', { hello: 'bob' })
    t.match(await bob.next('direct'), { from: 'alice', data: { hello: 'bob' } })
    bob.send({ type: 'publish', channel: 'app/room-1', data: 1 })
    bob.send({ type: 'send', to: 'alice', data: 2 })
    await until(() => received.length > 4)
    t.match(
      received.slice(3), [['message', { from: 'bob', data: 1, fromMetadata: { username: 'Bob' } }], ['direct', { from: 'bob', data: 2 }]]
    )
    await client.unsubscribe('app/room-1')
    bob.send({ type: 'publish', channel: 'app/room-1', data: 3, requestId: 'p' })
    await nextWhere(bob, 'ack', ({ requestId }) => requestId === 'p')
    await client.send('alice', 'over')
    await until(() => received.at(-1)![0] === 'direct' && received.length > 5)
    t.equal(received.length, 6)
    await client.close()
  })

  await t.test('SDK: it reports error codes by name', async t => {
    const client = sdkClient(t, registry, sourceOf(registry, 'carol', { channels: ['app/*'], permissions: ['subscribe', 'send'] }))
    await client.connect()
    await t.rejects(client.subscribe('other'), { name: 'channel_not_authorized' })
    await t.rejects(client.subscribe('_metered/x'), { name: 'channel_reserved' })
    await t.rejects(client.publish('app/a', 1), { name: 'action_not_permitted' })
    await t.rejects(client.send('nobody', 1), { name: 'peer_not_found' })
  })

  await t.test('SDK: it connects with a publishable key', async t => {
    const client = sdkClient(t, registry, { key: publishableKey })
    await client.connect()
    await client.subscribe('lobby')
    await t.rejects(client.subscribe('elsewhere'), { name: 'channel_not_authorized' })
  })

  await t.test('SDK: it reports the reason of a refusal', async t => {
    await t.rejects(sdkClient(t, registry, { key: 'pk_live_unknown' }).connect(), { message: /closeCode=4001/ })
    await t.rejects(sdkClient(t, registry, { token: async () => 'nonsense' }).connect(), { message: /closeCode=4001/ })
    await t.rejects(sdkClient(t, registry, { token: () => registry.tempToken('agent-one') }).connect(), { message: /closeCode=4003/ })
  })

  await t.test('SDK: an agent uses it with its own token', async t => {
    const token = await registry.join('agent-one')
    const agent = await registry.agentSocket(await registry.join('agent-two'))
    const client = sdkClient(t, registry, { token: async () => token })
    await client.connect()
    await client.send('agent-two', { hello: 1 })
    t.match(await agent.next('direct'), { from: 'agent-one', data: { hello: 1 }, fromMetadata: { agent_id: 'agent-one' } })
  })

  await t.test('SDK: it does not reconnect after an admin disconnects it', async t => {
    const client = sdkClient(t, registry, sourceOf(registry, 'dave'))
    const received = hear(client)
    await client.connect()
    t.same((await registry.delete('/v1/peers/dave', await registry.admin())).body, { peerId: 'dave', closed: 1 })
    await until(() => received.some(([event]) => event === 'disconnected'))
    t.match(received.at(-1), ['disconnected', { code: 4020, willReconnect: false }])
  })
})

/** Sockets opened by an SDK client. */
function watched (options: ReturnType<typeof sdkOptions>): { sockets: WebSocket[], options: ReturnType<typeof sdkOptions> } {
  const sockets: WebSocket[] = []
  const open = options.webSocketFactory!
  return {
    sockets,
    options: {
      ...options,
      webSocketFactory (url) {
        const socket = open(url)
        sockets.push(socket as unknown as WebSocket)
        return socket
      }
    }
  }
}

t.test('SDK: it reconnects and subscribes again after a disconnect', async t => {
  const registry = await buildV1(t)
  const { sockets, options } = watched(sdkOptions(registry, sourceOf(registry, 'alice')))
  const client = new SignallingClient(options)
  t.teardown(() => client.close())
  const received = hear(client)
  await client.connect()
  await client.subscribe('room')
  await client.subscribe('lobby')
  for (let cut = 1; cut <= 3; cut++) {
    const from = received.length
    sockets.at(-1)!.terminate()
    await until(() => received.slice(from).filter(([event]) => event === 'presence').length === 2)
    t.match(received.slice(from).map(([event]) => event), ['disconnected', 'connected', 'presence', 'presence'])
    t.match(received[from + 1], ['connected', { isReconnect: true, peerId: 'alice' }])
  }
  const bob = await peer(registry, 'bob')
  for (const channel of ['room', 'lobby']) bob.send({ type: 'publish', channel, data: channel })
  await until(() => received.filter(([event]) => event === 'message').length === 2)
  t.equal(sockets.length, 4)
})

/** A registry on a fixed port that can be restarted. */
async function serveSdk (t: Test, port: number): Promise<{ close: () => Promise<void> }> {
  const app = fastify()
  await app.register(agentRegistry, withDefaults(v1Options))
  await app.listen({ port, host: '127.0.0.1' })
  t.teardown(() => app.close())
  return app
}

t.test('SDK: it gets the shutdown notice, and reconnects when the server is back', async t => {
  const port = await freePort()
  const other = await build(t, v1Options)
  const first = await serveSdk(t, port)
  const token = await peerToken(other, 'alice')
  const options = { ...sdkOptions(other, { token: async () => token }), url: `ws://127.0.0.1:${port}` }
  const client = new SignallingClient(options)
  t.teardown(() => client.close())
  const received = hear(client)
  await client.connect()
  await client.subscribe('room')
  await first.close()
  await until(() => received.some(([event]) => event === 'disconnected'))
  t.ok(received.some(([event]) => event === 'going-away'))
  t.match(received.find(([event]) => event === 'disconnected'), ['disconnected', { code: 1001, willReconnect: true }])
  await serveSdk(t, port)
  await until(() => received.filter(([event]) => event === 'presence').length === 2, 10_000)
  await client.send('alice', 'again')
  await until(() => received.at(-1)![0] === 'direct')
})

// The assertions of the tests of existing servers, and the members that existing clients require.

const requiredKeys = [
  'agent_id', 'name', 'agent_type', 'endpoint', 'capabilities', 'context_brief', 'version', 'owner', 'public_key', 'metadata',
  'communication_mode', 'status', 'last_seen', 'registered_at'
]
const idsOf = ({ body }: Answer): string[] => body.map((agent: Json) => agent.agent_id)

/** Six agents of two types, one of them dead. */
async function fleet (registry: Harness): Promise<void> {
  for (const [index, type] of ['testing', 'security', 'testing', 'security', 'testing'].entries()) {
    await registry.join(`agent-${index}`, {
      agent_type: type,
      capabilities: index % 2
        ? ['scan', 'report']
        : ['test'],
      context_brief: `Agent that ${'really '.repeat(index)}tests things`
    })
  }
}

t.test('discovery', async t => {
  const registry = await build(t)
  await fleet(registry)
  const discover = (query = '') => registry.get(`/public/discover${query}`)

  await t.test('discovery: the response is a bare list of live agents with every field that clients require', async t => {
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

  await t.test('discovery: it filters by type and by capabilities', async t => {
    t.same(idsOf(await discover('?agent_type=security')).sort(), ['agent-1', 'agent-3'])
    t.same(idsOf(await discover('?capabilities=test')).sort(), ['agent-0', 'agent-2', 'agent-4'])
    t.same(idsOf(await discover('?agent_type=testing&capabilities=scan')), [])
  })

  await t.test('discovery: pages are disjoint', async t => {
    const [first, second] = [idsOf(await discover('?limit=2&offset=0')), idsOf(await discover('?limit=2&offset=2'))]
    t.equal(new Set([...first, ...second]).size, 4)
    t.equal((await discover('?limit=150')).status, 422)
  })

  await t.test('discovery: dead agents are hidden', async t => {
    const short = await build(t, { lease: { durationMs: 300 } })
    await short.join()
    await until(() => short.app.agentRegistry.get('agent-one')!.status === 'dead')
    t.same((await short.get('/public/discover')).body, [])
    t.match(await short.get('/public/agent/agent-one'), { status: 404, body: { type: /agent-not-available$/ } })
  })
})

t.test('search: the response is a list with the required fields, best first, above the minimum similarity', async t => {
  const registry = await build(t)
  await fleet(registry)
  await registry.join('agent-far', { context_brief: 'Sends a parcel after long tests of patience' })
  const search = async (more: object): Promise<Json[]> =>
    (await registry.post('/public/search', { body: { query: 'agent that tests things', top_k: 10, ...more } })).body
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

t.test('agents: GET of one agent returns every field, and 404 for an unknown id', async t => {
  const registry = await build(t)
  await registry.join()
  const { status, body } = await registry.get('/public/agent/agent-one')
  t.equal(status, 200)
  t.same(Object.keys(AgentInfo.properties).filter(key => !(key in body)), [])
  t.match(await registry.get('/public/agent/nobody-here'), { status: 404, body: { detail: 'Agent nobody-here not found' } })
})

t.test('contact: the response is 200, 502 or 504, and 422 for an invalid request', async t => {
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

t.test('public tier: it sends a welcome, answers pings and serves pages', async t => {
  const registry = await build(t)
  await fleet(registry)
  const client = registry.socket('/public/ws')
  client.opened.then(() => client.send({ type: 'get_discovery', page: 1, page_size: 2 }))
  const welcome = await client.next()
  t.equal(welcome.type, 'welcome')
  t.ok(welcome.features.includes('agent_updates'))
  const { data } = await client.next('discovery_data')
  t.match(data.pagination, {
    current_page: 1, page_size: 2, total_agents: 5, total_pages: 3, has_next: true, has_previous: false, next_page: 2, previous_page: null
  })
  t.equal(data.agents.length, 2)
  client.send({ type: 'ping' })
  t.type((await client.next('pong')).timestamp, 'number')
  client.send(' PING\n')
  t.equal(await client.next('pong'), 'pong')
})

t.test('service: it reports name, version and limits, and counts types', async t => {
  const registry = await build(t)
  await fleet(registry)
  t.match((await registry.get('/public/info')).body, {
    service: String, version: '2.1.2', limits: { discover_max_limit: 100, search_max_limit: 50 }
  })
  t.match((await registry.get('/public/stats')).body, { alive_agents: 5, total_agents: 5, agent_types: 2, system_status: 'operational' })
  t.match((await registry.get('/.well-known/jwks.json')).headers.get('cache-control'), /max-age=\d+/)
})

t.test('registration: a client with a token registers again and learns that validation is off', async t => {
  const registry = await build(t)
  const { body: first } = await registry.register()
  const admin = await registry.admin()
  for (const call of [{ token: first.access_token }, admin, { token: 'outdated' }] as Call[]) {
    const compliance = await registry.post('/auth/agent/validate_compliance', {
      ...call,
      body: {
        agent_id: 'agent-one', agent_type: 'testing', endpoint: 'http://127.0.0.1:9', capabilities: ['cap one'], metadata: {}
      }
    })
    t.match(compliance, { status: 400, body: { detail: /not enabled/ } })
  }
  const again = await registry.post('/agents/register', { token: first.access_token, body: registration() })
  t.match(again, { status: 200, body: { status: 'success', agent_id: 'agent-one', created: false } })
  t.equal((await registry.get('/agents/agent-one?include_metrics=true', { token: again.body.access_token })).status, 200)
  t.ok(again.body.heartbeat_every_ms * 2 <= again.body.lease_ms, 'one heartbeat may get lost')
})

t.test('heartbeat: a client whose record was removed learns so, and registers again with its token', async t => {
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

t.test('errors: every refusal is an object with a human-readable detail', async t => {
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

t.test('compatibility: documented features that existing servers never had are absent', async t => {
  const registry = await build(t)
  const { body: joined } = await registry.register()
  t.same(['token', 'data', 'agent'].filter(key => key in joined), [])
  t.equal(joined.status, 'success')
  const token: string = joined.access_token
  t.ok(Array.isArray((await registry.get('/agents', { token })).body), 'a bare list, not a page object')
  t.ok(Array.isArray((await registry.get('/agents?limit=1', { token })).body), 'paged lists too')
  t.same(Object.keys((await registry.post('/agents/agent-one/heartbeat', { token })).body)
    .sort(), ['agent_id', 'last_seen', 'metrics', 'status'])
  const [hit] = (await registry.post('/public/search', { body: { query: 'agent', limit: 0, threshold: 2 } })).body
  t.ok('similarity' in hit && !('similarity_score' in hit))
  t.equal((await registry.post('/tokens/validate', { body: { token } })).status, 422, 'the token is in the query')
  t.equal((await registry.post('/tokens/refresh', { body: { token } })).status, 401, 'the token is in the header')
  t.type((await registry.get('/public/stats')).body.agent_types, 'number')
  const nested = await registry.post('/agents/agent-one/metrics', { token, body: { metrics: { success_rate: 1 } } })
  t.match(nested.body.metrics, { success_rate: 0 }, 'the response shows that the value was ignored')
})
