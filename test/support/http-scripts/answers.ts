import type { Test } from 'tap'
import { build, fingerprint, keys, password, registration, serve, type Harness } from '../harness.js'
import { HttpRecorder } from '../http-recorder.js'

export const scrapeToken = 'a-token-for-prometheus'
export const secretKey = 'sk_id_test:sk_secret_0123456789'
export const served = {
  routes: { root: true, docs: true, v1: true },
  metricsScrapeToken: scrapeToken,
  secretKeys: [secretKey],
  attempts: { burst: 10_000 },
  lease: { durationMs: 3_600_000 }
}

const agentRoute = '/agents/{id}'

async function registerAgents (http: HttpRecorder, endpoint: string) {
  const temp = await http.call(
    'POST /auth/agent/request_temp_token', { body: { agent_id: 'agent-one', agent_type: 'testing', agent_key: keys.plain } }
  )
  const token: string = temp.body.temp_token
  const body = registration('agent-one', { endpoint })
  await http.call('POST /auth/agent/validate_compliance', { token, body })
  const { body: { access_token: access } } = await http.call('POST /agents/register', { token, body })
  await http.call('POST /agents/register', { token, body })
  const changed = { ...body, requirements: { permissions: ['a'] }, features: ['b'] }
  const newer = await http.call('POST /agents/register', { token: access, body: changed })
  await http.call('POST /agents/register', { token: access, body })
  await http.call('POST /agents/agent-one/heartbeat', { token: access }, `${agentRoute}/heartbeat`)
  return newer.body.access_token
}

async function actAsAgent (http: HttpRecorder, token: string, endpoint: string) {
  const call = { token }
  await http.call('GET /agents', call)
  await http.call('GET /agents?include_metrics=true&status=alive&limit=1', call)
  const one = await http.call('GET /agents/agent-one', call, agentRoute)
  await http.call('GET /agents/agent-one?include_metrics=false', {
    ...call,
    headers: {
      'if-none-match': one.headers.get('etag') ??
    ''
    }
  }, agentRoute)
  await http.call('HEAD /agents/agent-one', call, agentRoute)
  await http.call('PATCH /agents/agent-one', { ...call, body: { name: 'Agent 1', metadata: { a: null, c: 'd' } } }, agentRoute)
  await http.call('PATCH /agents/agent-one', { ...call, body: { name: 'Agent 2' }, headers: { 'if-match': '"other:1"' } }, agentRoute)
  await http.call('PATCH /agents/agent-one', { ...call, body: { agent_id: 'other' } }, agentRoute)
  await http.call('POST /agents/agent-one/heartbeat', call, `${agentRoute}/heartbeat`)
  await http.call('POST /agents/agent-one/status', { ...call, body: { status: 'draining' } }, `${agentRoute}/status`)
  await http.call('POST /agents/agent-one/status', { ...call, body: { status: 'alive' } }, `${agentRoute}/status`)
  await http.call('POST /agents/agent-one/metrics', { ...call, body: { success_rate: 0.5, unknown: 1 } }, `${agentRoute}/metrics`)
  await http.call('POST /agents/agent-one/metrics', { ...call, body: { success_rate: 7 } }, `${agentRoute}/metrics`)
  await http.call('GET /agents/agent-one/metrics', call, `${agentRoute}/metrics`)
  await http.call('POST /agents/report-metrics/agent-one?response_time=0.5', call, '/agents/report-metrics/{id}')
  await http.call('POST /agents/agent-one/metrics/compat?response_time=0.5&success=false', call, `${agentRoute}/metrics/compat`)
  await http.call('POST /agents/search', { ...call, body: { query: 'Agent', top_k: 3, min_similarity: 0.1, weighted: true } })
  await http.call('GET /agents/search?query=Agent', call)
  await http.call('GET /agents/changes', call)
  await http.call('GET /agents/changes?since=other:1', call)
  await http.call('GET /agents/changes?snapshot=true', call)
  await http.call('GET /agents/events?snapshot=true', call)
  const notify = { ...call, body: { agent_id: 'agent-one', agent_endpoint: endpoint } }
  await http.call('POST /agents/agent-two/connection/notify', notify, `${agentRoute}/connection/notify`)
  await http.call('GET /tokens/validate', call)
  await http.call(`POST /tokens/validate?token=${token}`)
  await http.call('POST /tokens/validate?token=wrong')
  const refreshed = await http.call('POST /tokens/refresh', call)
  await http.call('POST /ws-tickets', call)
  return refreshed.body.access_token
}

async function readPublic (http: HttpRecorder) {
  const paths = [
    '/', '/public/discover', '/public/discover?limit=1&offset=1&agent_type=testing', '/public/stats', '/public/info', '/public/agent_types',
    '/health', '/health/live', '/health/ready', '/.well-known/jwks.json', '/.well-known/arcp-configuration', '/docs', '/docs/',
    '/openapi.json'
  ]
  for (const path of paths) await http.call(`GET ${path}`)
  await http.call('GET /public/agent/agent-one', {}, '/public/agent/{id}')
  await http.call('GET /problems/not-found', {}, '/problems/{type}')
  await http.call('POST /public/search', { body: { query: 'Agent', top_k: 3, min_similarity: 0.1 } })
  const user = { user_id: 'ann', user_endpoint: 'https://ann.example', display_name: 'Ann' }
  await http.call('POST /public/connect/agent-one', { body: user }, '/public/connect/{id}')
  await http.call('GET /metrics/scrape', { token: scrapeToken })
}

async function openSession (http: HttpRecorder) {
  const headers = { 'x-client-fingerprint': fingerprint }
  const login = { username: 'admin', password }
  await http.call('POST /auth/login', { headers, body: { ...login, password: 'wrong' } })
  await http.call('POST /auth/login', { body: { agent_id: 'agent-three', agent_type: 'testing', agent_key: keys.plain } })
  const { body: { access_token: token } } = await http.call('POST /auth/login', { headers, body: login })
  const call = { token, headers }
  await http.call('GET /auth/pin_status', call)
  await http.call('GET /auth/pin_status', { token })
  await http.call('POST /auth/verify_pin', { ...call, body: { pin: 'said-4711' } })
  await http.call('POST /auth/set_pin', { ...call, body: { pin: '1' } })
  await http.call('POST /auth/set_pin', { ...call, body: { pin: 'said-4711' } })
  await http.call('POST /auth/set_pin', { ...call, body: { pin: 'said-4711' } })
  await http.call('POST /auth/verify_pin', { ...call, body: { pin: 'other-12' } })
  await http.call('POST /auth/verify_pin', { ...call, body: { pin: 'said-4711' } })
  await http.call('GET /auth/session_status', call)
  return call
}

async function actAsAdmin (http: HttpRecorder) {
  const call = await openSession(http)
  const withPin = { ...call, headers: { ...call.headers, 'x-session-pin': 'said-4711' } }
  for (const path of [
    '/agents/stats', '/health/detailed', '/health/config', '/health/redis', '/health/azure', '/metrics', '/dashboard/config'
  ]) {
    await http.call(`GET ${path}`, call)
  }
  await http.call('POST /dashboard/config', { ...withPin, body: { ui: { refreshInterval: 60, maxLogEntries: 5 } } })
  await http.call('POST /dashboard/config', { ...withPin, body: { ui: 5 } })
  const mint = { user_id: 'somebody', agent_id: 'some-body' }
  await http.call('POST /tokens/mint', { ...call, body: mint })
  await http.call('POST /tokens/mint', { ...withPin, body: mint })
  await http.call('POST /tokens/mint', { ...withPin, body: { ...mint, role: 'owner' } })
  await http.call('POST /tokens/revoke', { ...withPin, body: { agent_id: 'agent-two' } })
  await http.call('DELETE /agents/agent-two', call, agentRoute)
  await http.call('DELETE /agents/agent-two', { ...call, headers: { ...call.headers, 'x-session-pin': 'wrong-12' } }, agentRoute)
  await http.call('DELETE /agents/agent-two', withPin, agentRoute)
  await http.call('POST /auth/logout', withPin)
  await http.call('GET /auth/session_status', call)
}

async function actAsPeers (http: HttpRecorder, registry: Harness, token: string) {
  const call = { token: secretKey }
  const channel = '/v1/channels/room%2F1'
  const peer = { peerId: 'alice', channels: ['**'], expiresInSec: 600, metadata: { a: 1 }, peerMetadata: { b: 2 } }
  await http.call('POST /v1/tokens', { ...call, body: peer })
  await http.call('POST /v1/tokens', { ...call, body: { ...peer, peerId: '' } })
  await http.call('POST /v1/tokens', { ...call, body: { ...peer, peerId: 'agent-one' } })
  await http.call('GET /v1/usage', call)
  await http.call(`POST ${channel}/publish`, {
    ...call, body: { data: { text: 'hello' }, from: 'said-me', msgId: 'm1' }
  }, '/v1/channels/{channel}/publish')
  await http.call(`POST ${channel}/publish`, { ...call, body: {} }, '/v1/channels/{channel}/publish')
  await http.call(`GET ${channel}/history`, call, '/v1/channels/{channel}/history')
  await http.call(`GET ${channel}/peers`, call, '/v1/channels/{channel}/peers')
  const client = await registry.agentSocket(token)
  client.ws.on('message', data => {
    const { type, rid } = JSON.parse(String(data))
    if (type === 'request') client.send({ type: 'reply', rid, data: { text: 'world' } })
  })
  await http.call('POST /v1/peers/agent-one/send', { ...call, body: { data: 1 } }, '/v1/peers/{peerId}/send')
  await http.call('POST /v1/peers/agent-none/send', { ...call, body: { data: 1 } }, '/v1/peers/{peerId}/send')
  await http.call('POST /v1/peers/agent-one/request', { ...call, body: { data: 1, timeoutMs: 30_000 } }, '/v1/peers/{peerId}/request')
  await http.call('POST /v1/peers/agent-none/request', { ...call, body: { data: 1, timeoutMs: 1000 } }, '/v1/peers/{peerId}/request')
  await http.call('POST /v1/request', { ...call, body: { capability: 'cap one', data: 1, timeoutMs: 30_000 } })
  await http.call('POST /v1/request', { ...call, body: { capability: 'none', data: 1, timeoutMs: 1000 } })
  await http.call('DELETE /v1/peers/agent-none', call, '/v1/peers/{peerId}')
  client.close(1000)
  await client.closed
}

/** One successful request per route, and the errors that need a state. */
export async function recordAnswers (t: Test) {
  const registry = await build(t, served)
  const endpoint = await serve(t, (_request, response) => { response.end('{}') })
  const http = new HttpRecorder(registry)
  let token = await registerAgents(http, endpoint)
  await registry.join('agent-two', { endpoint })
  token = await actAsAgent(http, token, endpoint)
  await readPublic(http)
  await actAsPeers(http, registry, token)
  await actAsAdmin(http)
  await http.call('DELETE /agents/agent-one', { token, headers: { 'content-type': 'application/json' } }, agentRoute)
  await http.call('DELETE /agents/agent-one', { token }, agentRoute)
  return http
}
