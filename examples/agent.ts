/**
 * A small agent. It serves POST /echo and GET /health, stays registered while it runs, whatever happens to the registry,
 * and unregisters on SIGINT or SIGTERM.
 *
 *   REGISTRY_URL=http://127.0.0.1:8001 AGENT_KEY=<one of AGENT_KEYS> node examples/agent.ts
 */
import { setTimeout as sleep } from 'node:timers/promises'
import fastify from 'fastify'
import type { RegistrationResponse } from 'fastify-agent-registry'
import { WebSocket } from 'ws'

const { REGISTRY_URL: registry = 'http://127.0.0.1:8001', AGENT_KEY: agentKey, AGENT_ID: agentId = 'echo-agent' } = process.env

const app = fastify()
app.get('/health', async function health () { return { status: 'healthy' } })
app.post('/echo', async function echo (request) { return { echo: request.body } })
const endpoint = await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT ?? 0) })
console.log(`${agentId} listens at ${endpoint}`)

const registration = {
  agent_id: agentId,
  name: 'Echo agent',
  agent_type: 'testing',
  endpoint,
  capabilities: ['echo'],
  context_brief: 'Answers POST /echo with the body it was sent',
  version: '1.0.0',
  owner: 'examples',
  public_key: 'this example has no key pair to show',
  metadata: { language: 'TypeScript' },
  communication_mode: 'remote'
}

/** Aborted when all is over: by a signal, or when a newer instance of this agent has taken its place. */
const stopping = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stopping.abort())

/** One registration: its token, how often to heartbeat, and a signal that is aborted when it has ended. */
interface Life { token: string, everyMs: number, signal: AbortSignal, end: () => void }

async function call<T> (method: string, path: string, token?: string, body?: object): Promise<T> {
  const headers = { ...(token && { authorization: `Bearer ${token}` }), ...(body && { 'content-type': 'application/json' }) }
  const response = await fetch(registry + path, { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(5000) })
  const answer = await response.json() as { detail?: string }
  if (!response.ok) throw Object.assign(new Error(`${method} ${path}: ${response.status} ${answer.detail}`), { status: response.status })
  return answer as T
}

/** The agent key buys a temporary token, which is good for one registration. */
async function register (): Promise<RegistrationResponse> {
  const credentials = { agent_id: agentId, agent_type: registration.agent_type, agent_key: agentKey }
  const answer = await call<{ temp_token: string }>('POST', '/auth/agent/request_temp_token', undefined, credentials)
  return call('POST', '/agents/register', answer.temp_token, registration)
}

/** 0.25 to 0.5 s, twice that after each failure, 30 s at most: a fleet must not come back in step. */
function backOff (failures: number): number {
  return Math.min(30_000, 500 * 2 ** failures) * (0.5 + Math.random() / 2)
}

async function pause (ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => { /* over, and not a moment later */ })
}

/** There is a newer instance: two that register in turn would throw each other out for ever. */
function giveWay (): void {
  console.log('a newer instance of this agent is registered')
  process.exitCode = 1
  stopping.abort()
}

/** That the registry cannot be reached ends nothing; that it does not know us any more does. */
async function heartbeat ({ token, signal, end }: Life): Promise<void> {
  if (signal.aborted) return
  await call('POST', `/agents/${agentId}/heartbeat`, token).catch(({ message, status }) => {
    console.log(message)
    if (status === 409) giveWay()
    if (status === 401 || status === 404) end()
  })
}

async function keepBeating (life: Life): Promise<void> {
  while (!life.signal.aborted) {
    await pause(life.everyMs * (0.8 + Math.random() / 5), life.signal)
    await heartbeat(life)
  }
}

/** The same rights for longer, from now on and for the open socket. */
async function renewToken (life: Life, socket: WebSocket): Promise<void> {
  const answer = await call<{ access_token: string }>('POST', '/tokens/refresh', life.token)
  life.token = answer.access_token
  socket.send(JSON.stringify({ type: 'auth', token: life.token }))
  console.log('token renewed')
}

/** A registry that has restarted may take the token and not know the agent: only a heartbeat tells. */
function greet (life: Life): void {
  console.log('connected')
  heartbeat(life).catch(life.end)
}

/** One connection to the agents tier, until it closes. Resolves with how long the registry asked us to stay away. */
async function connect (life: Life): Promise<{ wasOpen: boolean, stayAwayMs: number }> {
  const result = { wasOpen: false, stayAwayMs: 0 }
  const socket = new WebSocket(`${registry.replace('http', 'ws')}/agents/ws`, { headers: { authorization: `Bearer ${life.token}` } })
  socket.on('error', error => console.log(`socket: ${error.message}`))
  socket.on('message', data => {
    if (String(data) === 'ping') return socket.send('pong')
    const frame = JSON.parse(String(data))
    if (frame.type === 'auth_success' && !result.wasOpen) greet(life)
    if (frame.type === 'auth_success') result.wasOpen = true
    if (frame.type === 'token_expiring') renewToken(life, socket).catch(error => console.log(error.message))
    if (frame.type === 'going_away') result.stayAwayMs = frame.retryAfterMs
  })
  life.signal.addEventListener('abort', () => socket.close(1000))
  const [code, reason] = await new Promise<[number, Buffer]>(resolve => socket.on('close', (...how) => resolve(how)))
  console.log(`disconnected: ${code} ${reason}`.trim())
  if (code === 4009) giveWay()
  if (code === 4001 || code === 4002) life.end()
  return result
}

async function stayConnected (life: Life): Promise<void> {
  for (let failures = 0; !life.signal.aborted; failures++) {
    const { wasOpen, stayAwayMs } = await connect(life)
    if (wasOpen) failures = 0
    await pause(stayAwayMs + backOff(failures), life.signal)
  }
}

/** From a registration to its end. */
async function live (): Promise<void> {
  const { access_token: token, heartbeat_every_ms: everyMs, revision } = await register()
  console.log(`registered, revision ${revision}`)
  const ended = new AbortController()
  const life: Life = { token, everyMs, signal: AbortSignal.any([stopping.signal, ended.signal]), end: () => ended.abort() }
  await Promise.all([keepBeating(life), stayConnected(life)])
  if (!stopping.signal.aborted || process.exitCode) return
  await call('DELETE', `/agents/${agentId}`, life.token)
  console.log('unregistered')
}

for (let failures = 0; !stopping.signal.aborted; failures++) {
  await live().then(() => { failures = 0 }, error => console.log(error.message))
  await pause(backOff(failures), stopping.signal)
}
await app.close()
