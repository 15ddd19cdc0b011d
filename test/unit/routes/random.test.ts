import { Agent, request } from 'node:http'
import { Value } from '@sinclair/typebox/value'
import fc from 'fast-check'
import t from 'tap'
import { buildApp } from '../../../src/server/app.js'
import { problemTypes } from '../../../src/errors.js'
import { AgentInfo } from '../../../src/protocol/schemas/agent.js'
import { build, fingerprint, Harness, keys, password, registration, silentServer, until, withDefaults } from '../../support/harness.js'
import { Mirror, play, shapes, steps } from '../../support/feed-script.js'
import { type EventReader, events } from './feed-helper.js'
import { seed } from '../../support/lengths.js'

interface Shot { method: string, path: string, headers: Record<string, string>, body: Buffer | undefined }
interface Hit { status: number, type: string, text: string }

const connections = new Agent({ keepAlive: true, maxSockets: 4 })

function fire (base: string, { method, path, headers, body }: Shot): Promise<Hit> {
  const { hostname, port } = new URL(base)
  return new Promise((resolve, reject) => {
    const length = body && { 'content-length': String(body.length) }
    const sending = request({
      hostname, port, method, path, headers: { ...headers, ...length }, agent: connections, timeout: 10_000
    }, async response => {
      let text = ''
      for await (const chunk of response) text += chunk
      resolve({ status: response.statusCode!, type: response.headers['content-type'] ?? '', text })
    })
    sending.on('timeout', () => sending.destroy(new Error(`${method} ${path} was not answered`)))
    sending.on('error', reject)
    sending.end(body)
  })
}

const ids = ['agent-one', 'agent-two', '__proto__', 'constructor', 'stats', 'register', 'x'.repeat(
  100
), 'x'.repeat(257), '%00', '%E0%A4%A', '..%2f', '%3Cimg%3E', '1e999']
const routes = [
  'GET /', 'GET /health', 'GET /health/live', 'GET /health/ready', 'GET /.well-known/arcp-configuration', 'GET /.well-known/jwks.json',
  'GET /openapi.json', 'GET /problems/ID',
  'GET /public/ws', 'GET /agents/ws', 'POST /auth/agent/request_temp_token', 'POST /auth/agent/validate_compliance', 'POST /auth/login',
  'POST /auth/logout', 'POST /auth/set_pin',
  'POST /auth/verify_pin', 'GET /auth/pin_status', 'GET /auth/session_status', 'POST /tokens/mint', 'POST /tokens/validate',
  'GET /tokens/validate', 'POST /tokens/refresh',
  'POST /tokens/revoke', 'POST /ws-tickets', 'GET /agents', 'POST /agents/register', 'GET /agents/stats', 'GET /agents/ID',
  'PATCH /agents/ID', 'DELETE /agents/ID',
  'POST /agents/ID/heartbeat', 'POST /agents/ID/status', 'GET /public/discover', 'GET /public/agent/ID', 'GET /public/stats',
  'GET /public/info', 'GET /public/agent_types', 'GET /nothing/ID'
]
const parameters = [
  'limit', 'offset', 'cursor', 'status', 'agent_type', 'capabilities', 'include_metrics', 'token', '__proto__', 'constructor', 'a[b]'
]
const values = [
  '', '0', '1', '-1', '100', '1e9', 'NaN', 'true', 'alive', 'testing', 'cap one', '%', 'null', '[]', '9'.repeat(64), 'é\u0000'
]

const encoded = fc.string({ unit: 'binary', maxLength: 20 }).map(encodeURIComponent)
const route = fc.tuple(fc.constantFrom(...routes), fc.oneof(fc.constantFrom(...ids), encoded))
  .map(([line, id]) => line.replace('ID', id).split(' '))
const parameter = fc.tuple(fc.constantFrom(...parameters), fc.oneof(fc.constantFrom(...values).map(encodeURIComponent), encoded))
  .map(pair => pair.join('='))
/** Mostly a supported method. */
const line = fc.tuple(route, fc.array(parameter, { maxLength: 4 }), fc.oneof({
  weight: 6, arbitrary: fc.constant(undefined)
}, { weight: 1, arbitrary: fc.constantFrom('GET', 'POST', 'PATCH', 'DELETE', 'PUT', 'HEAD', 'OPTIONS', 'TRACE') }))
  .map(([[method, path], query, other]) => ({ method: other ?? method!, path: query.length > 0 ? `${path}?${query.join('&')}` : path! }))

const visible = fc.stringMatching(/^[!-~]{0,30}$/)
const headers = (tokens: string[]) => fc.record({
  authorization: fc.oneof({
    weight: 9,
    arbitrary: fc.constantFrom(...tokens)
      .map(token => `Bearer ${token}`)
  }, { weight: 1, arbitrary: visible }),
  'content-type': fc.constantFrom(
    'application/json', 'application/json', 'application/json; charset=utf-8', 'application/merge-patch+json', 'text/plain',
    'application/xml', ''
  ),
  'x-client-fingerprint': fc.oneof({ weight: 9, arbitrary: fc.constant(fingerprint) }, { weight: 1, arbitrary: visible }),
  'x-session-pin': visible,
  'if-none-match': fc.oneof(fc.constant('*'), visible),
  'if-match': fc.oneof(fc.constant('*'), visible, fc.constant('"a:1"')),
  'x-forwarded-for': fc.oneof(visible, fc.ipV4(), fc.ipV6()),
  'x-request-id': visible
}, { requiredKeys: [] })

const shape = registration()
const members = {
  ...shape,
  pin: '1357',
  username: 'admin',
  password,
  agent_key: keys.plain,
  user_id: 'some',
  role: 'user',
  scopes: [],
  token: 'x',
  tier: 'agents',
  status: 'alive'
}
const names = Object.keys(members) as Array<keyof typeof members>
const odd = fc.oneof(fc.jsonValue(), fc.constantFrom(NaN, Infinity, -0, '__proto__', { constructor: 1 }, [], {}, null, '\ud800'))
const nearly = fc.tuple(fc.subarray(names), fc.dictionary(
  fc.constantFrom<string>(...names, '__proto__', 'constructor', 'requirements', 'features'), odd, { maxKeys: 3 }
))
  .map(([left, changed]) => ({ ...Object.fromEntries(left.map(name => [name, members[name]])), ...changed }))
const body = fc.oneof(
  fc.constant(undefined),
  fc.oneof(nearly, fc.constant(members), fc.jsonValue()).map(value => Buffer.from(JSON.stringify(value))),
  fc.string().map(text => Buffer.from(text)),
  fc.uint8Array({ maxLength: 64 }).map(bytes => Buffer.from(bytes)),
  fc.constantFrom(
    '{', '[', '{"__proto__":{}}', `${'['.repeat(5000)}`, `{"metadata":${'{"a":'.repeat(5000)}1${'}'.repeat(5001)}`, 'NaN', '\ufeff{}'
  ).map(text => Buffer.from(text))
)

/** The error of a response; undefined if it is valid. */
function fault ({ status, type, text }: Hit, method: string): string | undefined {
  if (status >= 500) return `${status} ${text}`
  if (method === 'HEAD' || status === 304) return text === '' ? undefined : 'a body'
  if (!/^application\/(problem\+)?json/.test(type)) return `${status} of type '${type}'`
  const document = JSON.parse(text)
  if (status < 400) return undefined
  const suffix = String(document.type).replace('/problems/', '')
  return Object.hasOwn(problemTypes, suffix) && document.status === status ? undefined : `an unknown problem ${text}`
}

t.test(`random requests: each has a catalogued response, and the server keeps working (TEST_SEED=${seed})`, {
  timeout: 120_000
}, async t => {
  const options = withDefaults({ routes: { root: true, health: true, wellKnown: true, docs: true }, attempts: { burst: 100_000 } })
  const app = await buildApp({ options, server: { ...silentServer, trustProxy: true } })
  t.teardown(async () => {
    connections.destroy()
    await app.close()
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const registry = new Harness(app)
  const admin = await registry.admin()
  const tokens = [await registry.agent('agent-two'), await registry.tempToken(), admin.token, await registry.agent('agent-one')]

  const rest = fc.record({ headers: headers(tokens) as fc.Arbitrary<Record<string, string>>, body })
  const shot: fc.Arbitrary<Shot> = fc.tuple(line, rest).map(([first, others]) => ({ ...first, ...others }))
  await fc.assert(fc.asyncProperty(shot, async one => {
    const found = fault(await fire(registry.base, one), one.method)
    if (found) throw new Error(found)
  }), { numRuns: 1500 })

  t.equal((await registry.get('/health')).body.status, 'healthy')
  for (const agent of app.agentRegistry.list()) t.same([...Value.Errors(AgentInfo, agent)], [])
  t.equal((await registry.register('agent-new')).status, 200)
  t.notOk('polluted' in {})
})

/** Follows the feed through one transport, and resumes after a disconnect. */
interface Follower {
  readonly mirror: Mirror
  resume (): Promise<void>
  cut (): void
  /** Applies the received changes. @returns whether the feed is at its end */
  take (): Promise<boolean>
}

class StreamFollower implements Follower {
  readonly mirror = new Mirror()
  readonly #registry: Harness
  readonly #token: string
  #stream: EventReader | undefined
  #read = 0
  #lastId = ''

  constructor (registry: Harness, token: string) {
    this.#registry = registry
    this.#token = token
  }

  async resume () {
    this.#read = 0
    this.#stream ??= await events(
      this.#registry, { token: this.#token, query: '?snapshot=true', headers: this.#lastId ? { 'last-event-id': this.#lastId } : {} }
    )
  }

  cut () {
    this.#apply()
    this.#stream?.close()
    this.#stream = undefined
  }

  async take () {
    this.#apply()
    return this.#lastId === this.#registry.app.agentRegistry.revision
  }

  #apply () {
    const come = this.#stream?.all.slice(this.#read) ?? []
    this.#read += come.length
    for (const { id, event, data } of come) {
      this.#lastId = id
      if (event === 'resync') this.mirror.reset()
      else if (event === 'snapshot') this.mirror.add(data.agents)
      else if (event !== 'bookmark') this.mirror.change(data)
    }
  }
}

class PollFollower implements Follower {
  readonly mirror = new Mirror()
  readonly #registry: Harness
  readonly #token: string
  #since: string | undefined

  constructor (registry: Harness, token: string) {
    this.#registry = registry
    this.#token = token
  }

  async resume () { await this.take() }
  cut () { /* no connection between two polls */ }

  async take () {
    if (this.#since === undefined) await this.#list()
    const { body } = await this.#registry.get(`/agents/changes?since=${this.#since}&limit=3`, { token: this.#token })
    this.#since = body.resync ? undefined : body.revision
    for (const change of body.changes) this.mirror.change(change)
    return this.#since === this.#registry.app.agentRegistry.revision
  }

  async #list () {
    const { body, headers } = await this.#registry.get('/agents', { token: this.#token })
    this.mirror.reset(body)
    this.#since = headers.get('x-registry-revision')!
  }
}

const followers = { 'a stream': StreamFollower, polls: PollFollower }

for (const [name, Follower] of Object.entries(followers)) {
  for (const ringSize of [1000, 3]) {
    const title = `${name}: a client that reconnects ends with the registry's agents` +
      `, with a ring of ${ringSize} changes (TEST_SEED=${seed})`
    t.test(title, async t => {
      const registry = await build(t, { feed: { ringSize, bookmarkIntervalMs: 50 } })
      const admin = await registry.admin()
      const token = await registry.join('the-reader')
      await fc.assert(fc.asyncProperty(steps, async script => {
        const follower = new Follower(registry, token)
        await follower.resume()
        for (const step of script) await play(registry, admin, follower, step)
        await follower.resume()
        await until(() => follower.take(), 10_000)
        const actual = shapes(follower.mirror.agents.values())
        follower.cut()
        if (!t.same(actual, shapes(registry.app.agentRegistry.list()))) throw new Error('not the same')
      }), { numRuns: 12 })
    })
  }
}
