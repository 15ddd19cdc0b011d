import fastify from 'fastify'
import t, { type Test } from 'tap'
import agentRegistry, { agentRegistry as named, type AgentRegistryOptions } from '../../../src/index.js'
import { resolveOptions } from '../../../src/options.js'
import { build, defaults, Harness, keys, problemOf, secret, withDefaults } from '../../support/harness.js'

/** The error that registering ends with. */
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
  ['dashboard.alertRules.0.threshold', { dashboard: { alertRules: [{ id: 'r', type: 'r', metric: 'cpu', threshold: 'high', message: 'm' }] } }],
  ['agentsWs.compress', { agentsWs: { compress: true } }],
  ['metricsScrapeToken', { metricsScrapeToken: 'no header can bear this' }],
  ['store', { store: 'memory' }],
  ['onRegister', { onRegister: 'yes' }],
  ['authenticate', { authenticate: {} }],
  ['publicView', { publicView: 1 }]
]

t.test('what is well known stands at the origin, whatever the prefix, and is the first registry\'s', async t => {
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

t.test('every wrong option stops the start and is named', async t => {
  for (const [name, options] of wrongOptions) {
    const { code, message } = await refusal(options)
    t.equal(code, 'AGENT_REGISTRY_INVALID_OPTIONS', name)
    t.match(message, new RegExp(`(^|[ ;])${name.replaceAll('.', '\\.')}[:.]`), name)
  }
})

t.test('several wrong options are named in one error, each with what it should be', async t => {
  const { message } = await refusal({ lease: { durationMs: 1 }, publicWs: { path: '' } })
  t.match(message, /lease\.durationMs: .*Time without a heartbeat/)
  t.match(message, /publicWs\.path: .*Path of this tier/)
})

t.test('secrets in wrong options are not repeated', async t => {
  for (const options of [{ jwt: { secret: 'hunter2' } }, { agentKeys: ['hunter2'] }, { admin: { password: 'hunter2'.repeat(200) } }]) {
    t.notMatch((await refusal(options)).message, /hunter2/)
  }
})

t.test('options that are no object are refused', async t => {
  for (const options of ['text', 1, true, []]) t.throws(() => resolveOptions(options), { code: 'AGENT_REGISTRY_INVALID_OPTIONS' })
  t.same(resolveOptions(null), resolveOptions({}), 'and none at all are the defaults')
})

t.test('undefined members count as left out', async t => {
  t.same(resolveOptions({ lease: { durationMs: undefined }, jwt: undefined, store: undefined }), resolveOptions({}))
})

t.test('the options of the caller stay as they were, and may be frozen', async t => {
  const options = Object.freeze({ agentKeys: Object.freeze([Object.freeze({ key: keys.plain })]), lease: Object.freeze({}) }) as unknown as AgentRegistryOptions
  const before = structuredClone(options)
  const app = fastify()
  t.teardown(() => app.close())
  await app.register(agentRegistry, options)
  t.same(options, before)
  const resolved = resolveOptions(options)
  resolved.routes.root = true
  resolved.allowedAgentTypes.push('other')
  t.notMatch(resolveOptions(options), { routes: { root: true } }, 'defaults are nobody else’s objects')
  t.notOk(resolveOptions({}).allowedAgentTypes.includes('other'))
})

t.test('it is registered without options, by its other name, and with a function that makes them', async t => {
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

t.test('groups of routes are there or not as the options say', async t => {
  const paths = ['/', '/health', '/health/live', '/health/ready', '/.well-known/jwks.json', '/.well-known/arcp-configuration', '/docs/', '/openapi.json']
  const answers = (...found: number[]) => Object.fromEntries(paths.map((path, index) => [path, found[index]]))
  t.same(await statuses(await build(t), paths), answers(404, 200, 200, 200, 200, 200, 404, 404), 'by default')
  const all = await build(t, { routes: { root: true, health: true, wellKnown: true, docs: true } })
  t.same(await statuses(all, paths), answers(200, 200, 200, 200, 200, 200, 200, 200))
  const none = await build(t, { routes: { root: false, health: false, wellKnown: false, docs: false } })
  t.same(await statuses(none, paths), answers(404, 404, 404, 404, 404, 404, 404, 404))
  t.equal((await none.get('/public/stats')).status, 200)
})

/** Everything that is reached by a path lies below `prefix`. */
async function checkPrefix (t: Test, registry: Harness, prefix: string) {
  const token = await registry.agent()
  const watcher = await registry.watcher()
  const socket = await registry.agentSocket(token)
  t.equal(socket.success.agent_id, 'agent-one')
  const refused = await registry.get('/agents')
  t.equal(new URL(refused.body.type, registry.base).pathname, `${prefix}/problems/authentication-failed`)
  const type = await fetch(new URL(refused.body.type, registry.base))
  t.equal(type.status, 200, 'where the type of a problem points to something is said of it')
  const { body } = await registry.get('/openapi.json')
  t.ok(`${prefix}/agents/register` in body.paths)
  t.equal((await registry.get('/docs/')).status, 200)
  t.equal((await registry.call('PUT', '/agents/register')).status, 405)
  watcher.close()
  socket.close()
}

t.test('a prefix stands before every route, socket and problem type', async t => {
  const registry = await build(t, { prefix: '/registry/v1', routes: { docs: true, root: true } })
  await checkPrefix(t, registry, '/registry/v1')
  t.equal((await registry.get('/')).status, 200)
  t.equal(problemOf(t, await registry.get('/no/such/path')), 'not-found')
  const atRoot = new Harness(registry.app)
  t.equal((await atRoot.get('/public/stats')).status, 404)
  t.equal((await atRoot.socket('/public/ws').refused).status, 404)
})

t.test('registered in a scope that has a prefix, with and without one of its own', async t => {
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

t.test('two registries in one app share nothing', async t => {
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
  t.match([await red.get('/openapi.json'), await blue.get('/openapi.json')].map(answer => Object.keys(answer.body.paths).every(path => !path.startsWith('/red') || !path.startsWith('/blue'))), [true, true])
  for (const watcher of watchers) watcher.close()
})

t.test('two registries under one name are refused', async t => {
  const app = fastify()
  t.teardown(() => app.close())
  await app.register(agentRegistry, { prefix: '/one' })
  await t.rejects(async () => { await app.register(agentRegistry, { prefix: '/two' }) }, { code: 'AGENT_REGISTRY_ALREADY_REGISTERED', message: /'agentRegistry' is taken.*decorateAs/ })
})

t.test('a name that the host has taken is refused', async t => {
  const app = fastify()
  t.teardown(() => app.close())
  app.decorate('fleet', 1)
  await t.rejects(async () => { await app.register(agentRegistry, { decorateAs: 'fleet' }) }, { code: 'AGENT_REGISTRY_ALREADY_REGISTERED' })
})
