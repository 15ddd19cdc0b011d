import type { TSchema } from '@sinclair/typebox'
import type { FastifyInstance, RouteOptions } from 'fastify'
import t, { type Test } from 'tap'
import { agentsClientFrames, agentsServerFrames } from '../../../src/protocol/frames/agents.js'
import { dashboardClientFrames, dashboardServerFrames } from '../../../src/protocol/frames/dashboard.js'
import { publicClientFrames, publicServerFrames } from '../../../src/protocol/frames/public.js'
import { v1ClientFrames, v1ServerFrames } from '../../../src/protocol/frames/v1.js'
import { events } from '../routes/feed-helper.js'
import {
  type Answer, answerChecker, build, type Call, type Client, fingerprint, type Harness, type Json, keys, password, registration,
  serve, until
} from '../../support/harness.js'
import { nextWhere, undocumentedFrames } from '../sockets/helper.js'
import { dashboard, strange } from '../sockets/dashboard-helper.js'
import { peer, secretKey, v1Options } from '../sockets/v1-helper.js'

t.test('smoke: an agent registers, is listed and unregisters', async t => {
  const registry = await build(t)
  const watcher = await registry.watcher()
  const token = await registry.agent()
  t.equal((await watcher.next('agents_update')).data.total_count, 1)
  const socket = await registry.agentSocket(token)
  t.equal(socket.success.agent_id, 'agent-one')
  t.equal((await registry.delete('/agents/agent-one', { token })).status, 200)
  t.equal((await socket.closed).code, 4001)
  watcher.close()
})

// Every route succeeds once, and every frame of every tier is sent and received once; the tables come from the catalogues.

const scrapeToken = 'scrape-token-of-the-walk'
const answers = answerChecker()

/** Served routes, and those with a response below 400. */
function routeCounter () {
  const served = new Set<string>()
  const answered = new Set<string>()
  function note ({ method, url, schema }: RouteOptions) {
    if (!(schema as { hide?: boolean } | undefined)?.hide &&
      !url.startsWith('/docs')) for (const name of [method].flat()) if (name !== 'HEAD') served.add(`${name} ${url}`)
  }
  function before (app: FastifyInstance) {
    answers.before(app)
    app.addHook('onRoute', note)
    // Not on response end: a stream may never end.
    app.addHook('onSend', async function count (request, reply) {
      if (reply.statusCode < 400) answered.add(`${request.method} ${request.routeOptions.url}`)
    })
  }
  return { served, answered, before }
}

type Step = [method: string, path: string, call: Call, body: Json]

async function walk (t: Test, registry: Harness, steps: Step[]): Promise<Answer> {
  let last: Answer | undefined
  for (const [method, path, call, body] of steps) {
    last = await registry.call(method, path, call)
    t.equal(last.status, 200, `${method} ${path}`)
    t.match(last.body ?? last.text, body, `${method} ${path}`)
  }
  return last!
}

t.test('walkthrough: every endpoint of existing clients and of this registry succeeds once', async t => {
  const routes = routeCounter()
  const registry = await build(t, { metricsScrapeToken: scrapeToken, routes: { root: true, docs: true } }, { before: routes.before })
  const print = { 'x-client-fingerprint': fingerprint }
  const endpoint = await serve(t, (_request, response) => { response.end('{}') })
  const body = registration('walker-one', { endpoint })

  const temp = await walk(t, registry, [['POST', '/auth/agent/request_temp_token', {
    body: {
      agent_id: 'walker-one', agent_type: 'testing', agent_key: keys.plain
    }
  }, { temp_token: String, token_type: 'bearer', expires_in: 900, message: String }]])
  t.match(await registry.post('/auth/agent/validate_compliance', { token: temp.body.temp_token, body }), {
    status: 400, body: { detail: /not enabled/ }
  })
  const joined = await walk(t, registry, [['POST', '/agents/register', {
    token: temp.body.temp_token, body
  }, { status: 'success', message: String, agent_id: 'walker-one', access_token: String }]])
  const token: string = joined.body.access_token
  await registry.agent('walker-two', { endpoint })

  await t.test('as an agent', async t => {
    const found = [{
      id: 'walker-one',
      name: 'Agent One',
      url: endpoint,
      capabilities: [
        'cap one'
      ],
      version: '1.0.0',
      owner: 'tests',
      similarity: Number
    }]
    const updated = { status: 'success', message: 'Metrics updated successfully' }
    await walk(t, registry, [
      ['GET', '/agents/walker-one?include_metrics=true', { token }, { ...body, status: 'alive', metrics: { agent_id: 'walker-one' } }],
      ['GET', '/agents?include_metrics=true&agent_type=testing&status=alive&capabilities=cap%20one', {
        token
      }, [{ agent_id: 'walker-one' }, { agent_id: 'walker-two' }]],
      ['POST', '/agents/walker-one/heartbeat', { token }, { agent_id: 'walker-one', status: 'success', last_seen: /Z$/, metrics: null }],
      ['POST', '/agents/walker-one/metrics', { token, body: { success_rate: 0.5 } }, { ...updated, metrics: { success_rate: 0.5 } }],
      ['GET', '/agents/changes', { token }, { changes: [], revision: /:\d+$/ }],
      ['GET', '/agents/walker-one/metrics', { token }, { agent_id: 'walker-one', success_rate: 0.5 }],
      ['POST', '/agents/report-metrics/walker-one?response_time=0.5', { token }, { ...updated, current_metrics: { total_requests: 1 } }],
      ['POST', '/agents/walker-one/metrics/compat?response_time=0.5', { token }, { ...updated, current_metrics: { total_requests: 2 } }],
      ['POST', '/agents/search', { token, body: { query: 'Agent', top_k: 3, min_similarity: 0.5, weighted: false } }, found],
      ['GET', '/agents/search?query=Agent', { token }, found],
      ['POST', '/agents/walker-two/connection/notify', {
        token,
        body: {
          agent_id: 'walker-one', agent_endpoint: endpoint
        }
      }, { status: 'notified', agent_endpoint: endpoint, next_step: String }],
      ['PATCH', '/agents/walker-one', { token, body: { name: 'Walker' } }, { name: 'Walker' }],
      ['POST', '/agents/walker-one/status', { token, body: { status: 'alive' } }, { state: 'alive' }],
      ['GET', '/tokens/validate', { token }, { valid: true, agent_id: 'walker-one' }],
      ['POST', `/tokens/validate?token=${token}`, {}, { valid: true, payload: { role: 'agent' } }],
      ['POST', '/tokens/refresh', { token }, { access_token: String, token_type: 'bearer' }],
      ['POST', '/ws-tickets', { token }, { ticket: String, expires_in: 30 }]
    ])
    const stream = await events(registry, { token, query: '?snapshot=true' })
    t.match(await stream.next('snapshot'), { data: { agents: [{ agent_id: 'walker-one' }, { agent_id: 'walker-two' }], last: true } })
    stream.close()
  })

  await t.test('as an anonymous client', async t => {
    await walk(t, registry, [
      ['GET', '/', {}, { service: 'ARCP', version: '2.1.2', status: 'healthy', dashboard: '/dashboard', docs: '/docs' }],
      ['GET', '/public/discover?limit=50&offset=0', {}, [{ agent_id: 'walker-one', name: 'Walker' }, {}]],
      ['GET', '/public/agent/walker-one', {}, { agent_id: 'walker-one', status: 'alive' }],
      ['POST', '/public/search', {
        body: {
          query: 'Walker', top_k: 3, min_similarity: 0.5, weighted: true
        }
      }, [{ id: 'walker-one', metrics: { total_requests: 2 } }]],
      ['POST', '/public/connect/walker-one', {
        body: {
          user_id: 'ann', user_endpoint: 'https://ann.example'
        }
      }, { status: 'connection_requested', request_id: String }],
      ['GET', '/public/stats', {}, { total_agents: 2, alive_agents: 2, agent_types: 1, system_status: 'operational' }],
      ['GET', '/public/info', {}, { version: '2.1.2', limits: { discover_max_limit: 100 } }],
      ['GET', '/public/agent_types', {}, { allowed_agent_types: Array }],
      ['GET', '/health', {}, { status: 'healthy', version: '2.1.2' }],
      ['GET', '/health/live', {}, { status: 'live' }],
      ['GET', '/health/ready', {}, { status: 'ready' }],
      ['GET', '/.well-known/jwks.json', {}, { keys: [] }],
      ['GET', '/.well-known/arcp-configuration', {}, { registration_endpoint: /\/agents\/register$/ }],
      ['GET', '/problems/not-found', {}, { type: 'not-found' }],
      ['GET', '/openapi.json', {}, { openapi: /^3\.1/ }],
      ['GET', '/metrics/scrape', { token: scrapeToken }, /^arcp_/m]
    ])
  })

  await t.test('as an admin with the PIN of the session', async t => {
    const login = await registry.post('/auth/login', { headers: print, body: { username: 'admin', password } })
    t.match(login.body, { access_token: String, token_type: 'bearer', expires_in: 1800, agent_id: 'user_admin' })
    const admin = { token: login.body.access_token, headers: { ...print, 'x-session-pin': 'walk-4711' } }
    await walk(t, registry, [
      ['GET', '/auth/pin_status', admin, { pin_set: false }],
      ['POST', '/auth/set_pin', { ...admin, body: { pin: 'walk-4711' } }, { status: 'success', message: 'PIN set for session' }],
      ['POST', '/auth/verify_pin', { ...admin, body: { pin: 'walk-4711' } }, { status: 'success', message: 'PIN verified' }],
      ['GET', '/auth/session_status', admin, {
        valid: true, user_id: 'admin', role: 'admin', is_admin: true, session_exists: true, pin_set: true
      }],
      ['GET', '/agents/stats', admin, { registry_statistics: { total_agents: 2, alive_agents: 2 } }],
      ['GET', '/health/detailed', admin, {
        status: 'healthy',
        components: {
          storage: { redis: 'disconnected' }
        },
        detailed: { database: { type: 'memory' } }
      }],
      ['GET', '/health/config', admin, {
        status: 'ok',
        required_config: Array,
        optional_config: {
          azure: [], redis: [], security: Array, agent: Array
        }
      }],
      ['GET', '/health/redis', admin, { status: 'unavailable', redis: 'disconnected' }],
      ['GET', '/health/azure', admin, { status: 'not_configured', details: { status: 'not_configured' } }],
      ['GET', '/metrics', admin, /^arcp_system_cpu_utilization_percent [\d.]+$/m],
      ['GET', '/dashboard/config', admin, {
        timezone: String, ws_ping_interval_ms: Number, log_buffer_maxlen: Number, log_message_maxlen: Number, ui: {}
      }],
      ['POST', '/dashboard/config', { ...admin, body: { ui: { refreshInterval: 60 } } }, { status: 'ok', ui: { refreshInterval: 60 } }],
      ['POST', '/tokens/mint', {
        ...admin,
        body: {
          user_id: 'somebody', agent_id: 'some-body'
        }
      }, { access_token: String, token_type: 'bearer', expires_in: Number }],
      ['POST', '/tokens/revoke', { ...admin, body: { agent_id: 'walker-two' } }, { status: 'success' }],
      ['DELETE', '/agents/walker-two', admin, { status: 'success', unregistered_by: 'admin (admin)' }]
    ])
    await walk(t, registry, [['POST', '/auth/logout', admin, { status: 'success', message: 'Logged out and session PIN cleared' }]])
    await walk(t, registry, [['DELETE', '/agents/walker-one', {
      token,
      headers: {
        'content-type': 'application/json'
      }
    }, { status: 'success', unregistered_by: 'agent (self)' }]])
  })

  const missing = [...routes.served].filter(route => !routes.answered.has(route))
  t.same(missing, ['POST /auth/agent/validate_compliance'], 'every served endpoint was used')
  t.same(answers.findings, [])
})

type Payloads = Record<string, object>
const typesIn = (frames: readonly TSchema[]): string[] =>
  [...new Set(frames.map(({ properties }) => properties.type.const as string))].sort()
const typesSeen = (clients: Client[]): string[] =>
  [...new Set(clients.flatMap(({ all }) => all).map(frame => frame.type).filter(Boolean))].sort()

/** Sends every frame of a tier with a requestId, and waits for its answer; a pong has none. */
async function sendAll (t: Test, client: Client, payloads: Payloads, catalogue: Payloads, ping = 'ping'): Promise<void> {
  t.same(Object.keys(payloads).sort(), Object.keys(catalogue).sort(), 'every frame that the tier accepts')
  const answersTo = (id: string) => client.all.filter(frame => frame.requestId === id)
  for (const [type, payload] of Object.entries(payloads)) {
    client.send({ type, requestId: type, ...payload })
    if (type !== 'pong') await until(() => answersTo(type).length > 0)
  }
  for (const type of Object.keys(payloads)) {
    const given = answersTo(type).map(frame => frame.type)
    t.equal(given.length, type === 'pong' ? 0 : 1, `${type}: ${given.join()}`)
    t.notOk(given.includes('error'), type)
  }
  client.send(ping)
  await client.next('pong')
}

const walkedChannel = { channel: 'agents/walk' }
const channels: Payloads = {
  subscribe: { ...walkedChannel, presence: true },
  publish: { ...walkedChannel, data: null, echo: true },
  history: walkedChannel,
  presence: walkedChannel,
  presence_update: { metadata: { mood: 'walking' } },
  unsubscribe: walkedChannel
}
const common: Payloads = { ping: {}, pong: {}, watch: { snapshot: true }, unwatch: {} }

/** Covers the frames of watchers, including a position of another epoch and an error. */
async function watchAll (registry: Harness, client: Client): Promise<void> {
  client.send({ type: 'watch', since: 'another:1' })
  await client.next('resync')
  await nextWhere(client, 'agents_snapshot', ({ last }) => last)
  await registry.join('watched-one')
  await client.next('agents_delta')
  await client.next('bookmark')
  client.send({ type: 'no such type' })
  await client.next('error')
}

/** An agent sends requests to itself, and covers all their frames. */
async function walkRequests (t: Test, client: Client): Promise<Payloads> {
  const ask = async (requestId: string) => {
    client.send({ type: 'request', requestId, to: 'walker-one', data: null, timeoutMs: 5000 })
    return (await client.next('request')).rid
  }
  const rid = await ask('replied')
  for (const type of ['accept', 'reply']) client.send({ type, rid, data: null, requestId: type })
  t.equal((await client.next('response')).requestId, 'replied')
  client.send({ type: 'reject', rid: await ask('rejected'), code: 'busy', message: 'Later', requestId: 'reject' })
  t.match(await client.next('error'), { code: 'rejected', reason: 'busy' })
  await ask('cancelled')
  client.send({ type: 'cancel_request', requestId: 'cancelled' })
  t.equal((await nextWhere(client, 'ack', ({ requestId }) => requestId === 'cancelled')).type, 'ack')
  await client.next('request_cancelled')
  const { request, accept, reply, reject, cancel_request: cancelRequest } = agentsClientFrames
  return { request, accept, reply, reject, cancel_request: cancelRequest }
}

/** Sent only after a store has lost data. */
const rare: ReadonlySet<string> = new Set(['inbox_gap', 'channel_gap'])

async function endOf (t: Test, registry: Harness, client: Client): Promise<void> {
  const closing = registry.app.close()
  await client.next('going_away')
  t.equal((await client.closed).code, 1001)
  await closing
}

const walked = { feed: { bookmarkIntervalMs: 200 }, sockets: { maxAgentsPerUpdate: 1, drainMs: 500 } }

t.test('walkthrough: every frame of the public tier', async t => {
  const registry = await build(t, { ...walked, publicWs: { intervalMs: 200 } })
  const client = await registry.watcher()
  await sendAll(t, client, { ...common, get_discovery: { page: 1, page_size: 50 } }, publicClientFrames)
  await registry.join('seen-one')
  await client.next('agents_update')
  await client.next('stats_update')
  await watchAll(registry, client)
  await endOf(t, registry, client)
  t.same(typesIn(publicServerFrames).filter(type => !typesSeen([client]).includes(type)), [])
  t.same(undocumentedFrames('public', client.all), [])
})

t.test('walkthrough: every frame of the agents tier', async t => {
  const registry = await build(t, { ...walked, jwt: { expiresInMs: 25_000 } })
  const refused = registry.socket('/agents/ws')
  await refused.next('auth_required')
  refused.send({ token: '' })
  await refused.next('auth_error')
  await registry.join('seen-one')
  const token = await registry.join('walker-one')
  const client = await registry.agentSocket(token)
  await until(() => ['agents_truncated', 'token_expiring'].every(type => typesSeen([client]).includes(type)))
  await watchAll(registry, client)
  const { goodbye, ...others } = agentsClientFrames
  const requests = await walkRequests(t, client)
  const direct = { send: { to: 'walker-one', data: null }, message: { to: 'walker-one', content: null }, inbox: {} }
  const rest = Object.fromEntries(Object.entries(others).filter(([type]) => !(type in requests)))
  await sendAll(t, client, { ...common, ...channels, ...direct, auth: { token }, status: { status: 'draining' } }, rest)
  const leaving = await registry.agentSocket(await registry.join('leaver-one'))
  leaving.send({ type: goodbye.properties.type.const, requestId: 'last' })
  t.equal((await leaving.next('ack')).requestId, 'last')
  t.equal((await leaving.closed).code, 1000)
  await endOf(t, registry, client)
  t.same(typesIn(agentsServerFrames).filter(type => !rare.has(type) && !typesSeen([refused, client, leaving]).includes(type)), [])
  for (const { all } of [refused, client, leaving]) t.same(undocumentedFrames('agents', all), [])
})

t.test('walkthrough: every frame and endpoint of /v1', async t => {
  const routes = routeCounter()
  const registry = await build(t, { ...walked, ...v1Options }, { before: routes.before })
  const alice = await peer(registry, 'alice')
  const room = { channel: 'room-1' }
  await sendAll(t, alice, {
    ping: {}, subscribe: room, publish: { ...room, data: null }, unsubscribe: room, send: { to: 'alice', data: null }
  }, v1ClientFrames, '{"type":"ping"}')
  const bob = await peer(registry, 'bob')
  for (const client of [alice, bob]) client.send({ type: 'subscribe', ...room })
  bob.send({ type: 'publish', ...room, data: 1 })
  await alice.next('message')
  alice.send({ type: 'no such type' })
  await alice.next('error')

  const agent = await registry.agentSocket(await registry.join('walker-one', { capabilities: ['walk'] }))
  agent.ws.on('message', raw => {
    const { type, rid } = JSON.parse(String(raw)) as Json
    if (type === 'request') agent.send({ type: 'reply', rid, data: 'walked' })
  })
  const call = (body?: Json): Call => ({ token: secretKey, ...(body && { body }) })
  await walk(t, registry, [
    ['POST', '/v1/tokens', call({ peerId: 'carol', channels: ['room-1'] }), { token: String, expiresAt: Number }],
    ['GET', '/v1/usage', call(), { appId: 'default', concurrentNow: 2 }],
    ['GET', '/v1/channels/room-1/peers', call(), { channel: 'room-1', peers: [{ peerId: 'alice' }, { peerId: 'bob' }] }],
    ['POST', '/v1/channels/room-1/publish', call({ data: 1 }), { channel: 'room-1', epoch: String, offset: 3, subscribers: 2 }],
    ['GET', '/v1/channels/room-1/history', call(), { channel: 'room-1', offset: 3, messages: [{}, {}, {}] }],
    ['POST', '/v1/peers/alice/send', call({ data: 1 }), { offset: 2, delivered: true }],
    ['POST', '/v1/peers/walker-one/request', call({ data: 1 }), { from: 'walker-one', data: 'walked' }],
    ['POST', '/v1/request', call({ capability: 'walk', data: 1 }), { from: 'walker-one', data: 'walked' }],
    ['DELETE', '/v1/peers/bob', call(), { peerId: 'bob', closed: 1 }]
  ])
  const isOfV1 = (name: string) => / \/v1\/./.test(name)
  t.same([...routes.served].filter(name => isOfV1(name) && !routes.answered.has(name)), [])
  await endOf(t, registry, alice)
  t.same(typesIn(v1ServerFrames).filter(type => !rare.has(type) && !typesSeen([alice]).includes(type)), [])
  for (const { all } of [alice, bob]) t.same(undocumentedFrames('v1', all), [])
})

t.test('walkthrough: every frame of the dashboard tier', async t => {
  const registry = await build(t, { ...walked, admin: { sessionTimeoutMs: 25_000 }, dashboardWs: { intervalMs: 200 } })
  const { token } = await registry.admin()
  const client = await dashboard(registry, token, { fingerprint })
  await until(() => ['alert', 'token_expiring'].every(type => typesSeen([client]).includes(type)))
  await watchAll(registry, client)
  const timestamp = new Date().toISOString()
  await sendAll(t, client, {
    ...common,
    auth: { token, fingerprint },
    pause_monitoring: { data: { paused: true } },
    resume_monitoring: { data: { paused: false } },
    refresh_request: { data: { forced: true, request_all: true } },
    agents_request: {},
    dashboard_log: { data: { level: 'INFO', message: 'walked', timestamp } },
    dashboard_alert: { data: { message: 'walked', severity: 'info', type: 'tests', timestamp } },
    clear_logs: { data: { source: 'dashboard_admin' } },
    clear_alerts: { data: { source: 'dashboard_admin' } }
  }, dashboardClientFrames)
  await endOf(t, registry, client)
  t.same(typesIn(dashboardServerFrames).filter(type => !typesSeen([client]).includes(type)), [])
  t.same(strange(client), [])
})
