/**
 * A small agent. It serves POST /echo and GET /health. It stays registered through disconnects and restarts of the registry
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
  context_brief: 'Answers POST /echo with the body of the request',
  version: '1.0.0',
  owner: 'examples',
  public_key: 'this example does not use a key pair',
  metadata: { language: 'TypeScript' },
  communication_mode: 'remote'
}

/** A signal of the process or a newer instance of this agent aborts it. */
const stopping = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stopping.abort())

/** One registration: its token, the interval between heartbeats, and a signal that aborts when the registration ends. */
interface Session { token: string, heartbeatEveryMs: number, signal: AbortSignal, end: () => void }

async function call<T> (method: string, path: string, token?: string, body?: object): Promise<T> {
  const headers = { ...(token && { authorization: `Bearer ${token}` }), ...(body && { 'content-type': 'application/json' }) }
  const response = await fetch(registry + path, { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(5000) })
  const answer = await response.json() as { detail?: string }
  if (!response.ok) throw Object.assign(new Error(`${method} ${path}: ${response.status} ${answer.detail}`), { status: response.status })
  return answer as T
}

/** Exchanges the agent key for a temporary token, which is valid for one registration. */
async function register (): Promise<RegistrationResponse> {
  const credentials = { agent_id: agentId, agent_type: registration.agent_type, agent_key: agentKey }
  const answer = await call<{ temp_token: string }>('POST', '/auth/agent/request_temp_token', undefined, credentials)
  return call('POST', '/agents/register', answer.temp_token, registration)
}

/** Starts at 0.25 to 0.5 s and doubles after each failure, up to 30 s. The jitter keeps agents from reconnecting at the same time. */
function backoffMs (failures: number): number {
  return Math.min(30_000, 500 * 2 ** failures) * (0.5 + Math.random() / 2)
}

async function pause (ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => { /* the signal ended the pause */ })
}

/** Does not register again: two instances that do would replace each other forever. */
function stopReplaced (): void {
  console.log('replaced by a newer instance of this agent')
  process.exitCode = 1
  stopping.abort()
}

/** An unreachable registry does not end the session. A registry that no longer knows the agent does. */
async function heartbeat ({ token, signal, end }: Session): Promise<void> {
  if (signal.aborted) return
  await call('POST', `/agents/${agentId}/heartbeat`, token).catch(({ message, status }) => {
    console.log(message)
    if (status === 409) stopReplaced()
    if (status === 401 || status === 404) end()
  })
}

async function sendHeartbeats (session: Session): Promise<void> {
  while (!session.signal.aborted) {
    await pause(session.heartbeatEveryMs * (0.8 + Math.random() / 5), session.signal)
    await heartbeat(session)
  }
}

/** Replaces the token and sends the new one on the open socket, which then stays open until the new token expires. */
async function renewToken (session: Session, socket: WebSocket): Promise<void> {
  const answer = await call<{ access_token: string }>('POST', '/tokens/refresh', session.token)
  session.token = answer.access_token
  socket.send(JSON.stringify({ type: 'auth', token: session.token }))
  console.log('token renewed')
}

/** A restarted registry may accept the token without knowing the agent. The response to a heartbeat shows it. */
function onConnected (session: Session): void {
  console.log('connected')
  heartbeat(session).catch(session.end)
}

/** Opens a connection to the agents tier. Resolves when it closes, with the delay that the registry asks for. */
async function connect (session: Session): Promise<{ wasOpen: boolean, retryAfterMs: number }> {
  const result = { wasOpen: false, retryAfterMs: 0 }
  const socket = new WebSocket(`${registry.replace('http', 'ws')}/agents/ws`, { headers: { authorization: `Bearer ${session.token}` } })
  socket.on('error', error => console.log(`socket: ${error.message}`))
  socket.on('message', data => {
    if (String(data) === 'ping') return socket.send('pong')
    const frame = JSON.parse(String(data))
    if (frame.type === 'auth_success' && !result.wasOpen) onConnected(session)
    if (frame.type === 'auth_success') result.wasOpen = true
    if (frame.type === 'token_expiring') renewToken(session, socket).catch(error => console.log(error.message))
    if (frame.type === 'going_away') result.retryAfterMs = frame.retryAfterMs
  })
  session.signal.addEventListener('abort', () => socket.close(1000))
  const [code, reason] = await new Promise<[number, Buffer]>(resolve => socket.on('close', (...args) => resolve(args)))
  console.log(`disconnected: ${code} ${reason}`.trim())
  if (code === 4009) stopReplaced()
  if (code === 4001 || code === 4002) session.end()
  return result
}

async function stayConnected (session: Session): Promise<void> {
  for (let failures = 0; !session.signal.aborted; failures++) {
    const { wasOpen, retryAfterMs } = await connect(session)
    if (wasOpen) failures = 0
    await pause(retryAfterMs + backoffMs(failures), session.signal)
  }
}

/** Registers, runs until the registration ends, and unregisters if the process is stopping. */
async function runSession (): Promise<void> {
  const { access_token: token, heartbeat_every_ms: heartbeatEveryMs, revision } = await register()
  console.log(`registered, revision ${revision}`)
  const ended = new AbortController()
  const session: Session = { token, heartbeatEveryMs, signal: AbortSignal.any([stopping.signal, ended.signal]), end: () => ended.abort() }
  await Promise.all([sendHeartbeats(session), stayConnected(session)])
  if (!stopping.signal.aborted || process.exitCode) return
  await call('DELETE', `/agents/${agentId}`, session.token)
  console.log('unregistered')
}

for (let failures = 0; !stopping.signal.aborted; failures++) {
  await runSession().then(() => { failures = 0 }, error => console.log(error.message))
  await pause(backoffMs(failures), stopping.signal)
}
await app.close()
