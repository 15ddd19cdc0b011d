import { createHash } from 'node:crypto'
import fastify from 'fastify'
import t, { type Test } from 'tap'
import agentRegistry, { agentRegistry as named, type AgentRegistryOptions } from '../../../src/index.js'
import { resolveOptions } from '../../../src/options.js'
import { buildApp } from '../../../src/server/app.js'
import { optionsFromEnv } from '../../../src/server/env.js'
import {
  build, defaults, fingerprint, Harness, type Json, keys, password, problemOf, registration, secret, withDefaults
} from '../../support/harness.js'
import { countingStore, timed } from '../../support/counting-store.js'

/** The error with which registering the plugin fails. */
async function refusal (options: unknown): Promise<{ code: string, message: string }> {
  const app = fastify()
  try {
    await app.register(agentRegistry, options as AgentRegistryOptions)
  } catch (error) {
    return error as { code: string, message: string }
  } finally {
    await app.close()
  }
  return { code: 'no error', message: '' }
}

const endless = -1
const wrongOptions: Array<[name: string, options: object]> = [
  ['unknown', { unknown: true }],
  ['prefix', { prefix: 'registry' }],
  ['prefix', { prefix: '/registry/' }],
  ['prefix', { prefix: '/with space' }],
  ['decorateAs', { decorateAs: 'two words' }],
  ['decorateAs', { decorateAs: '' }],
  ['namespace', { namespace: 'a:b' }],
  ['namespace', { namespace: 'n'.repeat(65) }],
  ['publicUrl', { publicUrl: 'ftp://registry' }],
  ['problemBase', { problemBase: '' }],
  ['routes', { routes: false }],
  ['routes.admin', { routes: { admin: true } }],
  ['routes.root', { routes: { root: 'yes' } }],
  ['allowedAgentTypes', { allowedAgentTypes: 'testing' }],
  ['allowedAgentTypes.0', { allowedAgentTypes: [''] }],
  ['agentKeys', { agentKeys: 'plain-key-0001' }],
  ['agentKeys.0', { agentKeys: ['too-short'] }],
  ['agentKeys.0', { agentKeys: ['k'.repeat(201)] }],
  ['agentKeys.1', { agentKeys: [keys.plain, { exclusive: true }] }],
  ['agentKeys.0', { agentKeys: [{ key: keys.plain, maxAgents: 0 }] }],
  ['agentKeys.0', { agentKeys: [{ key: keys.plain, ids: [] }] }],
  ['agentKeys.0', { agentKeys: [{ key: keys.plain, owner: 'me' }] }],
  ['publicFields', { publicFields: 'metadata' }],
  ['jwt.secret', { jwt: { secret: 's'.repeat(31) } }],
  ['jwt.secret', { jwt: { secret: [] } }],
  ['jwt.secret', { jwt: { secret: ['s'.repeat(32), 'short'] } }],
  ['jwt.algorithm', { jwt: { algorithm: 'none' } }],
  ['jwt.expiresInMs', { jwt: { expiresInMs: 0 } }],
  ['admin.username', { admin: { username: '' } }],
  ['admin.password', { admin: { password: '' } }],
  ['admin.maxSessions', { admin: { maxSessions: 1.5 } }],
  ['admin.sessionTimeoutMs', { admin: { sessionTimeoutMs: endless } }],
  ['attempts.burst', { attempts: { burst: 0 } }],
  ['attempts.windowMs', { attempts: { windowMs: '900000' } }],
  ['lease.durationMs', { lease: { durationMs: 199 } }],
  ['lease.durationMs', { lease: { durationMs: Number.NaN } }],
  ['lease.retentionMs', { lease: { retentionMs: Infinity } }],
  ['limits.maxBodyBytes', { limits: { maxBodyBytes: 255 } }],
  ['limits.hookTimeoutMs', { limits: { hookTimeoutMs: 2 ** 31 } }],
  ['limits.maxAgents', { limits: { maxAgents: null } }],
  ['addresses.blocked', { addresses: { blocked: '10.0.0.1' } }],
  ['addresses.blocked', { addresses: { blocked: ['10.0.0.0/33'] } }],
  ['addresses.allowed', { addresses: { allowed: ['localhost'] } }],
  ['feed.ringSize', { feed: { ringSize: 0 } }],
  ['sockets.drainMs', { sockets: { drainMs: 0 } }],
  ['sockets.maxBufferedBytes', { sockets: { maxBufferedBytes: 1 } }],
  ['publicWs.path', { publicWs: { path: 'ws' } }],
  ['publicWs.path', { publicWs: { path: '/:id' } }],
  ['agentsWs.maxConnections', { agentsWs: { maxConnections: 0 } }],
  ['dashboardWs.pingIntervalMs', { dashboardWs: { pingIntervalMs: '30s' } }],
  ['dashboardWs.pingIntervalMs', { dashboardWs: { pingIntervalMs: Number.NaN } }],
  ['dashboard.alertRules.0.threshold', {
    dashboard: {
      alertRules: [{ id: 'r', type: 'r', metric: 'cpu', threshold: 'high', message: 'm' }]
    }
  }],
  ['agentsWs.compress', { agentsWs: { compress: true } }],
  ['metricsScrapeToken', { metricsScrapeToken: 'no header can bear this' }],
  ['storage', { storage: 'disk' }],
  ['onRegister', { onRegister: 'yes' }],
  ['authenticate', { authenticate: {} }],
  ['publicView', { publicView: 1 }]
]

t.test('prefix: well-known documents stay at the origin and belong to the first registry', async t => {
  const app = fastify()
  t.teardown(() => app.close())
  await app.register(agentRegistry, { prefix: '/one', jwt: { secret } })
  await app.register(agentRegistry, { prefix: '/two', decorateAs: 'two', jwt: { secret } })
  const answer = await app.inject('/.well-known/arcp-configuration')
  t.equal(answer.json().registration_endpoint, 'http://localhost/one/agents/register')
  t.equal((await app.inject('/one/.well-known/jwks.json')).statusCode, 404)
  const refused = await app.inject({ method: 'POST', url: '/.well-known/jwks.json' })
  t.same([refused.statusCode, refused.json().type], [405, '/one/problems/method-not-allowed'])
})

t.test('options: each wrong option stops the start and is named', async t => {
  for (const [name, options] of wrongOptions) {
    const { code, message } = await refusal(options)
    t.equal(code, 'AGENT_REGISTRY_INVALID_OPTIONS', name)
    t.match(message, new RegExp(`(^|[ ;])${name.replaceAll('.', '\\.')}[:.]`), name)
  }
})

t.test('options: one error names several wrong options, each with the expected value', async t => {
  const { message } = await refusal({ lease: { durationMs: 1 }, publicWs: { path: '' } })
  t.match(message, /lease\.durationMs: .*Time without a heartbeat/)
  t.match(message, /publicWs\.path: .*Path of this tier/)
})

t.test('options: secrets in wrong options are not echoed', async t => {
  for (const options of [{ jwt: { secret: 'hunter2' } }, { agentKeys: ['hunter2'] }, { admin: { password: 'hunter2'.repeat(200) } }]) {
    t.notMatch((await refusal(options)).message, /hunter2/)
  }
})

t.test('options: a value that is not an object is refused', async t => {
  for (const options of ['text', 1, true, []]) t.throws(() => resolveOptions(options), { code: 'AGENT_REGISTRY_INVALID_OPTIONS' })
  t.same(resolveOptions(null), resolveOptions({}), 'and omitted options use the defaults')
})

t.test('options: undefined members count as omitted', async t => {
  t.same(resolveOptions({ lease: { durationMs: undefined }, jwt: undefined, storage: undefined }), resolveOptions({}))
})

t.test('options: the caller\'s object is not modified, and may be frozen', async t => {
  const options = Object.freeze(
    { agentKeys: Object.freeze([Object.freeze({ key: keys.plain })]), lease: Object.freeze({}) }
  ) as unknown as AgentRegistryOptions
  const before = structuredClone(options)
  const app = fastify()
  t.teardown(() => app.close())
  await app.register(agentRegistry, options)
  t.same(options, before)
  const resolved = resolveOptions(options)
  resolved.routes.root = true
  resolved.allowedAgentTypes.push('other')
  t.notMatch(resolveOptions(options), { routes: { root: true } }, 'defaults are not shared objects')
  t.notOk(resolveOptions({}).allowedAgentTypes.includes('other'))
})

t.test('options: the plugin registers without options, by its alias, and with a function that returns options', async t => {
  for (const register of [
    (app: ReturnType<typeof fastify>) => app.register(named),
    (app: ReturnType<typeof fastify>) => app.register(named, () => ({ routes: { root: true } }))
  ]) {
    const app = fastify()
    await register(app)
    t.equal((await app.inject('/public/stats')).statusCode, 200)
    await app.close()
  }
})

async function statuses (registry: Harness, paths: string[]) {
  return Object.fromEntries(await Promise.all(paths.map(async path => [path, (await registry.get(path)).status])))
}

t.test('options: groups of routes exist as configured', async t => {
  const paths = [
    '/', '/health', '/health/live', '/health/ready', '/.well-known/jwks.json', '/.well-known/arcp-configuration', '/docs/', '/openapi.json'
  ]
  const answers = (...found: number[]) => Object.fromEntries(paths.map((path, index) => [path, found[index]]))
  t.same(await statuses(await build(t), paths), answers(404, 200, 200, 200, 200, 200, 404, 404), 'by default')
  const all = await build(t, { routes: { root: true, health: true, wellKnown: true, docs: true } })
  t.same(await statuses(all, paths), answers(200, 200, 200, 200, 200, 200, 200, 200))
  const none = await build(t, { routes: { root: false, health: false, wellKnown: false, docs: false } })
  t.same(await statuses(none, paths), answers(404, 404, 404, 404, 404, 404, 404, 404))
  t.equal((await none.get('/public/stats')).status, 200)
})

/** Checks that every route is below `prefix`. */
async function checkPrefix (t: Test, registry: Harness, prefix: string) {
  const token = await registry.agent()
  const watcher = await registry.watcher()
  const socket = await registry.agentSocket(token)
  t.equal(socket.success.agent_id, 'agent-one')
  const refused = await registry.get('/agents')
  t.equal(new URL(refused.body.type, registry.base).pathname, `${prefix}/problems/authentication-failed`)
  const type = await fetch(new URL(refused.body.type, registry.base))
  t.equal(type.status, 200, 'the problem type has a description at its address')
  const { body } = await registry.get('/openapi.json')
  t.ok(`${prefix}/agents/register` in body.paths)
  t.equal((await registry.get('/docs/')).status, 200)
  t.equal((await registry.call('PUT', '/agents/register')).status, 405)
  watcher.close()
  socket.close()
}

t.test('prefix: it precedes every route, socket and problem type', async t => {
  const registry = await build(t, { prefix: '/registry/v1', routes: { docs: true, root: true } })
  await checkPrefix(t, registry, '/registry/v1')
  t.equal((await registry.get('/')).status, 200)
  t.equal(problemOf(t, await registry.get('/no/such/path')), 'not-found')
  const atRoot = new Harness(registry.app)
  t.equal((await atRoot.get('/public/stats')).status, 404)
  t.equal((await atRoot.socket('/public/ws').refused).status, 404)
})

t.test('prefix: the plugin works in a scope with a prefix, with and without its own prefix', async t => {
  for (const [outer, prefix] of [['/api', ''], ['/api', '/registry'], ['/api/', ''], ['/api/', '/registry']] as const) {
    const app = fastify()
    t.teardown(() => app.close())
    await app.register(async function api (scope) {
      scope.setNotFoundHandler((_request, reply) => { reply.code(404).send({ host: 'nothing' }) })
      await scope.register(agentRegistry, withDefaults({ prefix, routes: { docs: true } }))
    }, { prefix: outer })
    await app.listen({ port: 0, host: '127.0.0.1' })
    const registry = new Harness(app, `/api${prefix}`)
    await checkPrefix(t, registry, `/api${prefix}`)
    t.same((await new Harness(app).get('/api/elsewhere')).body, { host: 'nothing' })
    t.notOk(app.hasDecorator('agentRegistry'), 'the decorator stays in the scope')
  }
})

t.test('registries: two in one app share nothing', async t => {
  const app = fastify()
  t.teardown(() => app.close())
  await app.register(agentRegistry, { ...defaults, prefix: '/red', decorateAs: 'red', namespace: 'red', routes: { docs: true } })
  await app.register(agentRegistry, { ...defaults, prefix: '/blue', decorateAs: 'blue', namespace: 'blue', routes: { docs: true } })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const [red, blue] = [new Harness(app, '/red'), new Harness(app, '/blue')]
  const token = await red.agent()
  const watchers = [await red.watcher(), await blue.watcher()] as const

  t.equal((await red.get('/agents/agent-one', { token })).status, 200)
  t.equal(problemOf(t, await blue.get('/agents', { token })), 'token-invalid', 'although both sign with the same secret')
  t.equal((await blue.post('/agents/register', { token: await red.tempToken(), body: {} })).status, 401)
  t.equal((await blue.get('/auth/session_status', await red.admin())).status, 401)
  const socket = blue.socket('/agents/ws', [], { headers: { authorization: `Bearer ${token}` } })
  t.equal((await socket.closed).code, 4001)
  const { body } = await red.post('/ws-tickets', { token })
  t.equal((await blue.socket(`/agents/ws?ticket=${body.ticket}`).closed).code, 4001)

  await blue.register('agent-two')
  const frame = await watchers[1].next('agents_update')
  t.same(frame.data.agents.map((agent: { agent_id: string }) => agent.agent_id), ['agent-two'])
  t.same([(await red.get('/public/stats')).body.total_agents, (await blue.get('/public/stats')).body.total_agents], [1, 1])
  t.match([await red.get('/openapi.json'), await blue.get('/openapi.json')].map(answer =>
    Object.keys(answer.body.paths).every(path => !path.startsWith('/red') || !path.startsWith('/blue'))), [true, true])
  for (const watcher of watchers) watcher.close()
})

t.test('registries: two with one name are refused', async t => {
  const app = fastify()
  t.teardown(() => app.close())
  await app.register(agentRegistry, { prefix: '/one' })
  await t.rejects(async () => { await app.register(agentRegistry, { prefix: '/two' }) }, {
    code: 'AGENT_REGISTRY_ALREADY_REGISTERED', message: /'agentRegistry' already exists.*decorateAs/
  })
})

t.test('registries: a decorator name used by the host is refused', async t => {
  const app = fastify()
  t.teardown(() => app.close())
  app.decorate('fleet', 1)
  await t.rejects(async () => { await app.register(agentRegistry, { decorateAs: 'fleet' }) }, { code: 'AGENT_REGISTRY_ALREADY_REGISTERED' })
})

// The cost of requests, the contents of tokens and logs, and the configuration that a server requires.

const claimsOf = (token: string): Json => JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString())

t.test('the store', async t => {
  const { store, callsOf } = countingStore()
  const registry = await build(t, { storage: { agents: store } })
  const admin = await registry.admin()
  const token = await registry.agent()
  const watcher = await registry.watcher()
  const socket = await registry.agentSocket(admin.token)
  for (let index = 0; index < 50; index++) await registry.join(`agent-${index}`)

  await t.test('store: readers cause no store calls, at any number of agents', async t => {
    const reads = [
      '/public/discover?limit=1', '/public/discover', '/public/stats', '/public/agent/agent-one', '/health', '/agents', '/agents?limit=5',
      '/agents/agent-one', '/agents/agent-one/metrics',
      '/agents/search?query=agent', '/agents/stats', '/dashboard/config', '/metrics'
    ]
    for (const path of reads) {
      const call = path.startsWith('/agents/agent-one') ? { token } : admin
      t.same(await callsOf(async () => { t.equal((await registry.get(path, call)).status, 200, path) }), [], path)
    }
    t.same(await callsOf(async () => {
      watcher.send({ type: 'get_discovery', page_size: 1 })
      await watcher.next('discovery_data')
      socket.send({ type: 'watch', snapshot: true })
      await socket.next('agents_snapshot')
    }), [])
  })

  await t.test('store: each heartbeat and each report causes one store call, at any number of watchers', async t => {
    const once: Array<[path: string, body?: object]> = [
      ['/agents/agent-one/heartbeat'], ['/agents/agent-one/metrics', { success_rate: 1 }],
      ['/agents/report-metrics/agent-one?response_time=1']
    ]
    for (const [path, body] of once) {
      const calls = await callsOf(async () => { t.equal((await registry.post(path, { token, body })).status, 200, path) })
      t.equal(calls.length, 1, `${path}: ${calls.join()}`)
    }
  })

  await t.test('store: the fifty-first agent causes the same calls as the first', async t => {
    const fresh = countingStore()
    const empty = await build(t, { storage: { agents: fresh.store } })
    const first = await fresh.callsOf(() => empty.register('first-one'))
    t.ok(first.length > 0)
    const later = await callsOf(() => registry.register('later-one'))
    t.same(later, first)
  })
})

t.test('responses: tokens, logins and wrong keys are answered without a deliberate delay', async t => {
  const registry = await build(t, { attempts: { burst: 100 } })
  const admin = await registry.admin()
  const token = await registry.agent()
  const calls: Array<[name: string, call: () => Promise<unknown>]> = [
    ['validate', () => registry.get('/tokens/validate', { token })],
    ['refresh', () => registry.post('/tokens/refresh', { token })],
    ['mint', () => registry.post('/tokens/mint', { ...admin, body: { user_id: 'somebody', agent_id: 'some-body' } })],
    ['a wrong key', () => registry.tempToken('agent-one', 'no-such-key-at-all')],
    ['register', () => registry.post('/agents/register', { ...admin, body: registration('agent-two') })]
  ]
  for (const [name, call] of calls) {
    const ms = await timed(async () => { for (let round = 0; round < 5; round++) await call() })
    t.ok(ms < 5000, `five of ${name} took ${ms} ms, and would take more than 7,500 with a fixed delay`)
  }
})

t.test('tokens: a token carries nothing derived from its agent key', async t => {
  const lines: string[] = []
  const registry = await build(t, {}, { server: { logger: { level: 'trace', stream: { write (line: string) { lines.push(line) } } } } })
  await registry.tempToken('agent-one', `${keys.plain}-and-more`)
  const tokens = [await registry.tempToken(), (await registry.register()).body.access_token]
  const digests = (['hex', 'base64', 'base64url'] as const).flatMap(form =>
    ['sha256', 'sha512', 'md5'].map(name => createHash(name).update(keys.plain).digest(form)))
  for (const text of [...tokens.map(token => JSON.stringify(claimsOf(token))), lines.join('')]) {
    t.notOk(text.includes(keys.plain.slice(0, 8)), 'nor a prefix of it')
    for (const digest of digests) t.notOk(text.includes(digest))
  }
})

t.test('responses: headers of a response may be longer than those of a request', async t => {
  const registry = await build(t, { limits: { maxHeaderBytes: 1024 } })
  const token = await registry.join()
  const capabilities = Array.from({ length: 20 }, (_, index) => `${index} ${'x'.repeat(90)}`.trim())
  for (const id of ['agent-a', 'agent-b']) await registry.join(id, { capabilities })
  const query = capabilities.map(name => `capabilities=${encodeURIComponent(name)}`).join('&')
  const { status, headers, body } = await registry.get(`/agents?limit=1&${query}`, { token })
  t.equal(status, 200)
  t.equal(body.length, 1)
  t.ok(headers.get('link')!.length > 1024)
})

t.test('CORS: headers set by the host apply to the public documents', async t => {
  const registry = await build(t, {}, {
    before: app => app.addHook('onRequest', async function allowOrigins (request, reply) {
      reply.header('access-control-allow-origin', '*')
      if (request.method === 'OPTIONS') return reply.code(204).send()
    })
  })
  for (const path of ['/.well-known/jwks.json', '/.well-known/arcp-configuration', '/public/stats', '/agents']) {
    t.equal((await registry.get(path)).headers.get('access-control-allow-origin'), '*', path)
    t.equal((await registry.call(
      'OPTIONS', path, { headers: { origin: 'https://other.example', 'access-control-request-method': 'GET' } }
    )).status, 204, path)
  }
})

t.test('production: the server requires two secrets, and no list of hosts or origins', async t => {
  const app = await buildApp(optionsFromEnv(
    { NODE_ENV: 'production', STORE: 'memory', JWT_SECRET: secret, ADMIN_PASSWORD: password, AGENT_KEYS: keys.plain, LOG_LEVEL: 'silent' }
  ))
  t.teardown(() => app.close())
  await app.listen({ port: 0, host: '127.0.0.1' })
  const registry = new Harness(app)
  for (const host of ['registry.example', 'another.example:8443', '192.0.2.7']) {
    t.equal((await registry.get('/health', { headers: { host, origin: `https://${host}` } })).status, 200, host)
    t.match(await registry.socket('/public/ws', [], { headers: { host, origin: `https://${host}` } }).next(), { type: 'welcome' }, host)
  }
  t.equal((await registry.register()).status, 200)
  t.equal((await registry.get('/auth/session_status', await registry.admin(fingerprint))).status, 200)
})

t.test('production: there are no default credentials', async t => {
  const registry = await build(t, { admin: { password: undefined } })
  for (const [username, word] of [['ARCP', 'ARCP'], ['admin', 'admin'], ['admin', '']] as const) {
    const {
      status
    } = await registry.post('/auth/login', { headers: { 'x-client-fingerprint': fingerprint }, body: { username, password: word } })
    t.ok(status === 401 || status === 422, `${status}`)
  }
})
