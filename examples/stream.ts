/**
 * An agent streams the output of a long tool call to a user in a browser, on the channel `user-<name>/calls/<call>`. The
 * browser disconnects during the call, reconnects, subscribes from its last position and receives every missed chunk. This
 * program contains the registry, the agent and the browser, and ends with the call.
 *
 *   node examples/stream.ts
 */
import { EventEmitter, on, once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import fastify from 'fastify'
import agentRegistry from 'fastify-agent-registry'
import { WebSocket } from 'ws'

interface Frame { type: string, requestId?: string, code?: string, message?: string, recovered?: boolean }
interface Position { epoch: string, offset: number }
interface Chunk extends Position { data: { text?: string, isLast?: boolean } }

const password = 'the password of this example'
const app = fastify()
await app.register(agentRegistry, { allowedAgentTypes: ['worker'], admin: { password } })
const url = await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT ?? 0) })

async function post<T> (path: string, body: object, token?: string): Promise<T> {
  const authorization = token && { authorization: `Bearer ${token}` }
  const headers = { 'content-type': 'application/json', 'x-client-fingerprint': 'back-end', ...authorization }
  const response = await fetch(url + path, { method: 'POST', headers, body: JSON.stringify(body) })
  const answer = await response.json() as T & { detail?: string }
  if (!response.ok) throw new Error(`POST ${path}: ${response.status} ${answer.detail}`)
  return answer
}

/** A connection. It emits each frame by its type and resolves requests with their replies. */
class Connection extends EventEmitter {
  readonly socket: WebSocket
  readonly #pending = new Map<string, (answer: Frame) => void>()

  constructor (token: string) {
    super()
    // A page cannot set headers, so the token is a subprotocol. The registry selects the first of the two.
    this.socket = new WebSocket(`${url.replace('http', 'ws')}/agents/ws`, ['agent-registry.json', `bearer.${token}`])
    this.socket.on('message', data => this.#receive(String(data)))
  }

  async request (frame: object): Promise<Frame> {
    const requestId = crypto.randomUUID()
    this.socket.send(JSON.stringify({ ...frame, requestId }))
    const answer = await new Promise<Frame>(resolve => this.#pending.set(requestId, resolve))
    this.#pending.delete(requestId)
    if (answer.type === 'error') throw new Error(`${answer.code}: ${answer.message}`)
    return answer
  }

  #receive (text: string) {
    if (text === 'ping') return this.socket.send('pong')
    const frame = JSON.parse(text) as Frame
    const settle = this.#pending.get(frame.requestId ?? '')
    if (settle) settle(frame)
    else if (!Array.isArray(frame)) this.emit(frame.type, frame)
  }
}

async function connect (token: string): Promise<Connection> {
  const connection = new Connection(token)
  await once(connection, 'auth_success')
  return connection
}

/** The tool: a long call that yields its output in parts. */
async function * crawl (): AsyncGenerator<string> {
  for (let page = 1; page <= 25; page++) {
    await sleep(20)
    yield `page ${page}`
  }
}

/** Publishes each chunk after the acknowledgement of the previous one, so that the registry sets the pace. */
async function stream (agent: Connection, channel: string): Promise<void> {
  const publish = (data: Chunk['data']) => agent.request({ type: 'publish', channel, data })
  for await (const text of crawl()) await publish({ text })
  await publish({ isLast: true })
}

/** Prints chunks until the last or until `limit`; resolves with the position of the last one printed. */
async function read (browser: Connection, limit = Infinity): Promise<Position> {
  let count = 0
  for await (const [chunk] of on(browser, 'message') as AsyncIterableIterator<[Chunk]>) {
    const { epoch, offset, data: { text, isLast } } = chunk
    console.log(`  ${offset}: ${text ?? 'end of the stream'}`)
    if (isLast || ++count === limit) return { epoch, offset }
  }
  throw new Error('The stream ended without its last chunk')
}

await app.agentRegistry.register({
  agent_id: 'crawler',
  name: 'Crawler',
  agent_type: 'worker',
  endpoint: 'http://127.0.0.1:9',
  capabilities: ['crawl'],
  context_brief: 'Crawls pages and publishes each result',
  version: '1.0.0',
  owner: 'examples',
  public_key: 'this example does not use a key pair',
  metadata: { language: 'TypeScript' },
  communication_mode: 'remote'
})

// The back end issues a token for the user, and one for the agent that may only publish to the calls of this user.
const { access_token: admin } = await post<{ access_token: string }>('/auth/login', { username: 'admin', password })
const mint = (body: object) => post<{ access_token: string }>('/tokens/mint', body, admin)
const { access_token: userToken } = await mint({ user_id: 'ana', agent_id: 'ana-page' })
const { access_token: agentToken } = await mint({
  user_id: 'crawler',
  agent_id: 'crawler',
  role: 'agent',
  grants: [{ channels: ['user-ana/calls/**'], allow: ['publish'] }]
})

const agent = await connect(agentToken)
const done = new Promise<void>((resolve, reject) => agent.on('direct', ({ data: { channel } }: { data: { channel: string } }) => {
  stream(agent, channel).then(resolve, reject)
}))

const channel = 'user-ana/calls/crawl-1'
const browser = await connect(userToken)
const firstChunks = read(browser, 8)
await browser.request({ type: 'subscribe', channel })
await browser.request({ type: 'send', to: 'crawler', data: { channel } })
const since = await firstChunks
browser.socket.terminate()
console.log(`the browser is disconnected after offset ${since.offset}`)
await sleep(150)

const reconnected = await connect(userToken)
const remainingChunks = read(reconnected)
const { recovered } = await reconnected.request({ type: 'subscribe', channel, since })
await Promise.all([done, remainingChunks])
console.log(recovered ? 'all missed chunks were recovered' : 'some missed chunks were lost')
for (const { socket } of [agent, reconnected]) socket.close(1000)
await app.close()
