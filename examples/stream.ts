/**
 * An agent streams what a long tool call says to a user in a browser, on the channel `user-<name>/calls/<call>`. The browser
 * loses its connection in the middle, comes back with the last position that it has, and misses nothing. Registry, agent
 * and browser are in this program, which ends when the call is over.
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
  const headers = { 'content-type': 'application/json', 'x-client-fingerprint': 'the back end', ...(token && { authorization: `Bearer ${token}` }) }
  const response = await fetch(url + path, { method: 'POST', headers, body: JSON.stringify(body) })
  const answer = await response.json() as T & { detail?: string }
  if (!response.ok) throw new Error(`POST ${path}: ${response.status} ${answer.detail}`)
  return answer
}

/** A connection: it emits what comes by its type, and what it asks is answered. */
class Connection extends EventEmitter {
  readonly socket: WebSocket
  readonly #waiting = new Map<string, (answer: Frame) => void>()

  constructor (token: string) {
    super()
    // As a page has to do it, since it cannot set headers; the first of the two is the one that is agreed on.
    this.socket = new WebSocket(`${url.replace('http', 'ws')}/agents/ws`, ['agent-registry.json', `bearer.${token}`])
    this.socket.on('message', data => this.#take(String(data)))
  }

  async ask (frame: object): Promise<Frame> {
    const requestId = crypto.randomUUID()
    this.socket.send(JSON.stringify({ ...frame, requestId }))
    const answer = await new Promise<Frame>(resolve => this.#waiting.set(requestId, resolve))
    this.#waiting.delete(requestId)
    if (answer.type === 'error') throw new Error(`${answer.code}: ${answer.message}`)
    return answer
  }

  #take (text: string) {
    if (text === 'ping') return this.socket.send('pong')
    const frame = JSON.parse(text) as Frame
    const waiting = this.#waiting.get(frame.requestId ?? '')
    if (waiting) waiting(frame)
    else if (!Array.isArray(frame)) this.emit(frame.type, frame)
  }
}

async function connect (token: string): Promise<Connection> {
  const connection = new Connection(token)
  await once(connection, 'auth_success')
  return connection
}

/** The tool: it says many things, and takes its time. */
async function * crawl (): AsyncGenerator<string> {
  for (let page = 1; page <= 25; page++) {
    await sleep(20)
    yield `page ${page}`
  }
}

/** A chunk is published when the one before has its place: the call is no faster than the registry. */
async function stream (agent: Connection, channel: string): Promise<void> {
  const publish = (data: Chunk['data']) => agent.ask({ type: 'publish', channel, data })
  for await (const text of crawl()) await publish({ text })
  await publish({ isLast: true })
}

/** Prints `most` chunks, or all; resolves with the position of the last. */
async function read (browser: Connection, most = Infinity): Promise<Position> {
  let count = 0
  for await (const [chunk] of on(browser, 'message') as AsyncIterableIterator<[Chunk]>) {
    const { epoch, offset, data: { text, isLast } } = chunk
    console.log(`  ${offset}: ${text ?? 'that is all'}`)
    if (isLast || ++count === most) return { epoch, offset }
  }
  throw new Error('The stream has no end')
}

await app.agentRegistry.register({
  agent_id: 'crawler',
  name: 'Crawler',
  agent_type: 'worker',
  endpoint: 'http://127.0.0.1:9',
  capabilities: ['crawl'],
  context_brief: 'Crawls pages and tells what it finds while it does',
  version: '1.0.0',
  owner: 'examples',
  public_key: 'this example has no key pair to show',
  metadata: { language: 'TypeScript' },
  communication_mode: 'remote'
})

// The back end of the page gives the user a token, and the agent one that reaches this user's calls and nothing else.
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
const some = read(browser, 8)
await browser.ask({ type: 'subscribe', channel })
await browser.ask({ type: 'send', to: 'crawler', data: { channel } })
const since = await some
browser.socket.terminate()
console.log(`the browser is cut off after ${since.offset}`)
await sleep(150)

const again = await connect(userToken)
const rest = read(again)
const { recovered } = await again.ask({ type: 'subscribe', channel, since })
await Promise.all([done, rest])
console.log(recovered ? 'nothing is missing' : 'something is missing')
for (const { socket } of [agent, again]) socket.close(1000)
await app.close()
