import type { Test } from 'tap'
import { build, fingerprint, keys, registration, type Harness } from '../harness.js'
import { callHttp, HttpRecorder, inject, outcomeOf, type HttpCall } from '../http-recorder.js'
import { scrapeToken, secretKey, served } from './answers.js'

const maxBodyBytes = 20_000
/** These end the caller's token or session, and therefore come last. */
const endingRoutes = ['POST /tokens/refresh', 'POST /tokens/revoke', 'POST /auth/logout']

type Callers = Record<string, HttpCall>

/** Credentials of each kind. */
async function callersOf (registry: Harness): Promise<Callers> {
  const admin = await registry.admin()
  const print = { 'x-client-fingerprint': fingerprint }
  const mint = await registry.post('/tokens/mint', { ...admin, body: { user_id: 'somebody', agent_id: 'some-body' } })
  const peer = await registry.post('/v1/tokens', { token: secretKey, body: { peerId: 'alice', channels: ['**'] } })
  return {
    'no token': {},
    'an invalid token': { token: 'wrong' },
    'a temporary token': { token: await registry.tempToken('agent-temp') },
    'an agent': { token: await registry.join('agent-one') },
    'a user': { token: mint.body.access_token },
    'an admin': { token: admin.token, headers: print },
    'a peer': { token: peer.body.token },
    'a secret key': { token: secretKey },
    'a scrape token': { token: scrapeToken }
  }
}

const parameters: Record<string, string> = { id: 'agent-none', channel: 'room', peerId: 'nobody', type: 'none' }
const pathOf = (route: string) => route.replace(/\{(\w+)\}/g, (_, name: string) => parameters[name] ?? name)

const isRefused = (outcome = '401 ') => /^40[13] /.test(outcome)
const methods = ['DELETE', 'GET', 'PATCH', 'POST'] as const
type Method = typeof methods[number]
interface Route { method: Method, route: string }

const nameOf = ({ method, route }: Route) => `${method} ${route}`

/** Bodies that are invalid on every route. */
const wrongBodies: Callers = {
  'an empty body with a content type': { headers: { 'content-type': 'application/json' } },
  'a body that is not JSON': { raw: '{' },
  'an array as the body': { raw: '[]' },
  'a body of XML': { raw: '<a/>', headers: { 'content-type': 'application/xml' } },
  'a body that is too large': { raw: JSON.stringify({ text: 'x'.repeat(maxBodyBytes) }) }
}

async function outcomesOf (registry: Harness, { method, route }: Route, callers: Callers): Promise<Record<string, string>> {
  // An event stream does not end; its first event is enough.
  const isStream = route === '/agents/events'
  const path = pathOf(route) + (isStream ? '?snapshot=true' : '')
  const send = async (call: HttpCall) => outcomeOf(await (isStream ? callHttp : inject)(registry, method, path, call))
  const outcomes: Record<string, string> = {}
  for (const [name, call] of Object.entries(callers)) outcomes[name] = await send(call)
  const call = Object.entries(callers).findLast(([name]) => !isRefused(outcomes[name]))?.[1]
  if (method !== 'GET') {
    for (const [name, wrong] of Object.entries(wrongBodies)) {
      outcomes[name] = await send({ ...call, ...wrong, headers: { ...call?.headers, ...wrong.headers } })
    }
  }
  outcomes['another method'] = outcomeOf(await inject(registry, 'PUT', path, call))
  return outcomes
}

async function routesOf (registry: Harness): Promise<Route[]> {
  const { body: { paths } } = await registry.get('/openapi.json')
  return Object.entries<object>(paths).flatMap(([route, operations]) =>
    methods.filter(method => method.toLowerCase() in operations).map(method => ({ method, route })))
}

/** Responses of each route to callers of each kind without a body, and to invalid bodies. */
async function refuseCallers (t: Test) {
  const registry = await build(t, { ...served, limits: { maxBodyBytes } })
  const routes = await routesOf(registry)
  const isEnding = (route: Route) => endingRoutes.includes(nameOf(route))
  const callers = await callersOf(registry)
  const outcomes: Record<string, unknown> = {}
  for (const route of routes.filter(route => !isEnding(route))) outcomes[nameOf(route)] = await outcomesOf(registry, route, callers)
  for (const route of routes.filter(isEnding)) outcomes[nameOf(route)] = await outcomesOf(registry, route, await callersOf(registry))
  return { routes: routes.map(nameOf), outcomes }
}

/** Unknown routes, and headers and queries over the limits. */
async function refuseAnywhere (t: Test) {
  const registry = await build(t, served)
  const http = new HttpRecorder(registry)
  const token = await registry.join('agent-one')
  await http.call('GET /nothing')
  await http.call('OPTIONS /agents')
  await http.call('GET /agents?limit=0&status=gone', { token })
  await http.call(`GET /agents?${Array.from({ length: 51 }, (_, index) => `p${index}=1`).join('&')}`, { token })
  await http.call('GET /health', { headers: { 'x-long': 'x'.repeat(9000) } })
  await http.call('GET /public/discover?limit=1000&offset=-1')
  await http.call('GET /public/agent/agent-none')
  await http.call('GET /agents/agent-one', { token, headers: { 'x-min-revision': 'other:1' } })
  const [epoch] = registry.app.agentRegistry.revision.split(':')
  await http.call('GET /agents/agent-one', { token, headers: { 'x-min-revision': `${epoch}:1000` } })
  await http.call('GET /public/ws')
  await http.call('POST /agents/register', { token, body: { ...registration('agent-one'), version: 'x', capabilities: [], __proto__: 1 } })
  await http.call('POST /agents/register', { token, body: registration('agent-two') })
  const temp = await registry.tempToken('agent-one', keys.other)
  await http.call('POST /agents/register', { token: temp, body: registration('agent-one') })
  return http.entries
}

/** Limits, address lists and hooks of the host. */
async function refuseByOptions (t: Test) {
  const limited = await build(
    t, { ...served, attempts: { burst: 1 }, admission: { registrationsPerSecond: 1, burst: 1 }, limits: { maxAgents: 1 } }
  )
  const http = new HttpRecorder(limited)
  const headers = { 'x-client-fingerprint': fingerprint }
  const token = await limited.tempToken()
  for (const password of ['wrong', 'wrong again']) await http.call('POST /auth/login', { headers, body: { username: 'admin', password } })
  await limited.join('agent-one')
  await http.call('POST /agents/register', { token, body: registration() })
  await http.call('POST /agents/register', { token, body: registration() })
  const small = await build(t, { ...served, limits: { maxAgents: 1, maxRecordBytes: 2000 } })
  const crowded = new HttpRecorder(small)
  const own = await small.join('agent-one')
  await crowded.call('POST /agents/register', { token: await small.tempToken('agent-two'), body: registration('agent-two') })
  await crowded.call('POST /agents/register', {
    token: own, body: registration('agent-one', { context_brief: 'x'.repeat(900), ai_context: 'x'.repeat(1500) })
  })
  const blocked = new HttpRecorder(await build(t, { ...served, prefix: '/registry', addresses: { blocked: ['127.0.0.1'] } }))
  await blocked.call('GET /public/info')
  const hooks = await build(t, {
    ...served, prefix: '/registry', onRegister ({ registration: { agent_id: id } }) { if (id === 'agent-none') throw new Error('said no') }
  })
  const hooked = new HttpRecorder(hooks)
  await hooked.call('POST /agents/register', { token: await hooks.tempToken('agent-none'), body: registration('agent-none') })
  await hooked.call('GET /nothing')
  return [...http.entries, ...crowded.entries, ...blocked.entries, ...hooked.entries]
}

export async function recordRefusals (t: Test) {
  const { routes, outcomes } = await refuseCallers(t)
  return { routes, refusals: { outcomes, requests: [...await refuseAnywhere(t), ...await refuseByOptions(t)] } }
}
