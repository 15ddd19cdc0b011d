import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { decode } from '@msgpack/msgpack'
import type { TSchema } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import fastify, { type FastifyInstance, type FastifyRequest, type FastifyServerOptions } from 'fastify'
import type { Test } from 'tap'
import { WebSocket, type ClientOptions } from 'ws'
import { optionsFromEnv, type ServerSettings } from '../../src/server/env.js'
import agentRegistry, { type AgentRegistryOptions, type RegistrationBody } from '../../src/index.js'
import { Problem } from '../../src/protocol/schemas/rest.js'
/** Agent keys of the tests: two shared ones and an exclusive one. */
export const keys = { plain: 'plain-key-0001', other: 'other-key-0002', exclusive: 'exclusive-key-0003' }
export const fingerprint = 'test-fingerprint'
export const password = 'correct horse battery staple'
export const secret = 'a secret of more than thirty-two characters'

/** Settings of a stand-alone server that runs in a test. */
export const silentServer: ServerSettings = { ...optionsFromEnv({}).server, port: 0, logLevel: 'silent' }

export type Json = ReturnType<typeof JSON.parse>

export interface Answer { status: number, headers: Headers, body: Json, text: string }
export interface Call { token?: string | undefined, body?: unknown, raw?: string, headers?: Record<string, string> }

/** A port without a listener that was free a moment ago. */
export async function freePort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** A valid registration. */
export function registration (id = 'agent-one', more: object = {}) {
  return {
    agent_id: id,
    name: 'Agent One',
    agent_type: 'testing',
    endpoint: 'http://127.0.0.1:9',
    capabilities: ['cap one'],
    context_brief: 'An agent that is used in tests',
    version: '1.0.0',
    owner: 'tests',
    public_key: 'k'.repeat(40),
    metadata: { a: 'b' },
    communication_mode: 'remote' as const,
    ...more
  }
}

/** A client of a registry in any process. */
export class Remote {
  readonly base: string

  constructor (base: string) {
    this.base = base
  }

  async call (method: string, path: string, { token, body, raw, headers }: Call = {}): Promise<Answer> {
    const payload = raw ?? (body === undefined ? undefined : JSON.stringify(body))
    const response = await fetch(this.base + path, {
      method,
      headers: {
        ...(payload !== undefined &&
        { 'content-type': 'application/json' }),
        ...(token && { authorization: `Bearer ${token}` }),
        ...headers
      },
      ...(payload !== undefined && { body: payload }),
      redirect: 'manual'
    })
    const text = await response.text()
    const isJson = /json/.test(response.headers.get('content-type') ?? '')
    return { status: response.status, headers: response.headers, body: isJson && text ? JSON.parse(text) : undefined, text }
  }

  get (path: string, call?: Call) { return this.call('GET', path, call) }
  post (path: string, call?: Call) { return this.call('POST', path, call) }
  patch (path: string, call?: Call) { return this.call('PATCH', path, call) }
  delete (path: string, call?: Call) { return this.call('DELETE', path, call) }

  async tempToken (id = 'agent-one', key = keys.plain): Promise<string> {
    const { body } = await this.post('/auth/agent/request_temp_token', { body: { agent_id: id, agent_type: 'testing', agent_key: key } })
    return body.temp_token
  }

  /** Registers an agent with a key. @returns the response of the registration */
  async register (id = 'agent-one', more: object = {}, key = keys.plain): Promise<Answer> {
    return this.post('/agents/register', { token: await this.tempToken(id, key), body: registration(id, more) })
  }

  /** The access token of a newly registered agent. */
  async agent (id = 'agent-one', more: object = {}): Promise<string> {
    const { body } = await this.register(id, more)
    return body.access_token
  }

  /** Options of an admin request: `{ token, headers }`. */
  async admin (print = fingerprint): Promise<{ token: string, headers: Record<string, string> }> {
    const headers = { 'x-client-fingerprint': print }
    const { body } = await this.post('/auth/login', { body: { username: 'admin', password }, headers })
    return { token: body.access_token, headers }
  }

  socket (path: string, protocols?: string[], options?: ClientOptions): Client {
    return new Client(this.base.replace('http', 'ws') + path, protocols, options)
  }

  /** An open public socket after its welcome. */
  async watcher (): Promise<Client> {
    const client = this.socket('/public/ws')
    await client.next('welcome')
    return client
  }

  /** An authenticated agents socket after its list of agents; `success` holds auth_success. */
  async agentSocket (token: string, more: object = {}): Promise<Client & { success: Json }> {
    const client = this.socket('/agents/ws')
    await client.next('auth_required')
    client.send({ token, ...more })
    const success = await client.next('auth_success')
    await client.next('list')
    return Object.assign(client, { success })
  }
}

/** A registry that runs in this process. */
export class Harness extends Remote {
  readonly app: FastifyInstance

  constructor (app: FastifyInstance, prefix = '') {
    super(`http://127.0.0.1:${(app.server.address() as AddressInfo).port}${prefix}`)
    this.app = app
  }

  /** Registers an agent through the host API. @returns its access token */
  async join (id = 'agent-one', more: object = {}): Promise<string> {
    const { access_token: token } = await this.app.agentRegistry.register(registration(id, more) as RegistrationBody)
    return token
  }
}

const typeOf = (frame: Json) => typeof frame === 'string' ? frame : Array.isArray(frame) ? 'list' : frame.type

/** A WebSocket client that queues frames until a test reads them. */
export class Client {
  readonly ws: WebSocket
  readonly opened: Promise<unknown>
  /** Code and reason, once the socket is closed. */
  readonly closed: Promise<{ code: number, reason: string }>
  /** HTTP status of a refused upgrade. */
  readonly refused: Promise<{ status: number, headers: Record<string, unknown>, text: string }>
  /** Every received frame, read by a test or not. */
  readonly all: Json[] = []
  readonly #frames: Json[] = []
  readonly #waiting: Array<() => void> = []

  constructor (url: string, protocols: string[] = [], options: ClientOptions = {}) {
    this.ws = new WebSocket(url, protocols, options)
    this.opened = once(this.ws, 'open')
    this.opened.catch(() => {})
    this.closed = new Promise(resolve => { this.ws.once('close', (code, reason) => resolve({ code, reason: String(reason) })) })
    this.refused = once(this.ws, 'unexpected-response').then(async ([, response]) => {
      let text = ''
      for await (const chunk of response) text += chunk
      return { status: response.statusCode, headers: response.headers, text }
    })
    this.refused.catch(() => {})
    this.ws.on('error', () => {})
    this.ws.on('message', (data: Buffer, isBinary) => this.#push(isBinary ? JSON.stringify(decode(data)) : String(data)))
  }

  send (frame: unknown): void {
    this.ws.send(typeof frame === 'string' || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame))
  }

  /** The next frame of this type; others are skipped. `list` is a bare array; `ping` and `pong` texts have their text as type. */
  async next (type?: string, within = 5000): Promise<Json> {
    const deadline = Date.now() + within
    for (;;) {
      const index = this.#frames.findIndex(frame => type === undefined || typeOf(frame) === type)
      if (index >= 0) return this.#frames.splice(0, index + 1).at(-1)
      if (Date.now() >= deadline) {
        throw new Error(`No frame '${type}' within ${within} ms; there were ${JSON.stringify(this.all.map(typeOf))}`)
      }
      await this.#arrival(deadline - Date.now())
    }
  }

  /** Types of unread frames after `ms` of waiting. */
  async pending (ms = 100): Promise<string[]> {
    await sleep(ms)
    return this.#frames.map(typeOf)
  }

  close (code?: number): void { this.ws.close(code) }
  terminate (): void { this.ws.terminate() }

  #push (text: string) {
    const frame = /^[[{]/.test(text) ? JSON.parse(text) : text
    this.all.push(frame)
    this.#frames.push(frame)
    for (const wake of this.#waiting.splice(0)) wake()
  }

  #arrival (ms: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, ms)
      this.#waiting.push(() => { clearTimeout(timer); resolve() })
    })
  }
}

export const sleep = (ms: number) => new Promise<void>(resolve => setTimeout(resolve, ms))

/** Polls until `condition` is true. */
export async function until (condition: () => unknown, within = 5000): Promise<void> {
  const deadline = Date.now() + within
  while (!await condition()) {
    if (Date.now() > deadline) throw new Error(`Not within ${within} ms: ${condition}`)
    await sleep(10)
  }
}

export const defaults: AgentRegistryOptions = {
  agentKeys: [keys.plain, keys.other, { key: keys.exclusive, exclusive: true }],
  admin: { password },
  jwt: { secret },
  sockets: { agentsUpdateIntervalMs: 50, drainMs: 200 },
  agentsWs: { intervalMs: 50 }
}

/** Groups of options of a test are merged into the defaults, one level deep. */
export function withDefaults (options: AgentRegistryOptions = {}): AgentRegistryOptions {
  const merged: Record<string, unknown> = { ...defaults }
  for (const [name, value] of Object.entries(options)) {
    const known = merged[name]
    const isGroup = typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype
    merged[name] = isGroup && typeof known === 'object' ? { ...known, ...value } : value
  }
  return merged as AgentRegistryOptions
}

/** A listening app with a registry, closed with the test. `before` may prepare the host. */
export async function build (t: Test, options: AgentRegistryOptions = {}, {
  before, server = {}
}: { before?: (app: FastifyInstance) => unknown, server?: FastifyServerOptions } = {}): Promise<Harness> {
  const app = fastify(server)
  await before?.(app)
  await app.register(agentRegistry, withDefaults(options))
  await app.listen({ port: 0, host: '127.0.0.1' })
  t.teardown(() => app.close())
  return new Harness(app, options.prefix)
}

type ResponseSchemas = Record<string, TSchema | undefined>

/** Differences between a response and the response schema of its route. */
function answerErrors (request: FastifyRequest, status: number, payload: unknown): string[] {
  const schemas = request.routeOptions.schema?.response as ResponseSchemas | undefined
  const schema = schemas?.[status] ?? schemas?.[`${String(status)[0]}xx`]
  if (!schema || typeof payload !== 'string') return []
  return [...Value.Errors(schema, JSON.parse(payload))].map(
    ({ path, message }) => `${request.method} ${request.url} ${status} ${path}: ${message}`
  )
}

/** Collects each response that does not match the schema of its route. */
export function answerChecker () {
  const findings: string[] = []
  function before (app: FastifyInstance) {
    app.addHook('onSend', async function checkAnswer (request, reply, payload) {
      findings.push(...answerErrors(request, reply.statusCode, payload))
    })
  }
  return { findings, before }
}

/** The suffix of a problem type, after checking the shape of the problem. */
export function problemOf (t: Test, { status, headers, body }: Answer): string {
  t.match(headers.get('content-type'), /^application\/problem\+json/)
  t.same([...Value.Errors(Problem, body)], [])
  t.equal(body.status, status)
  t.equal(body.request_id, headers.get('x-request-id'))
  return body.type.replace(/^.*\/problems\//, '')
}

/** Starts another HTTP server, such as the endpoint of an agent, which ends with the test. @returns its URL */
export async function serve (t: Test, listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}
