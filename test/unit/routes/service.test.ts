import { connect } from 'node:net'
import fastify, { type RouteOptions } from 'fastify'
import t from 'tap'
import { buildApp } from '../../../src/server/app.js'
import { problemTypes } from '../../../src/errors.js'
import agentRegistry, { type AgentRegistryOptions } from '../../../src/index.js'
import {
  answerChecker, build, Harness, problemOf, registration, silentServer, until, withDefaults, type Answer
} from '../../support/harness.js'

const answers = answerChecker()
const all = { root: true, health: true, wellKnown: true, docs: true }

t.test('public routes', async t => {
  const registry = await build(t, { routes: all }, answers)
  const get = async (path: string) => (await registry.get(path)).body

  await t.test('public routes: the service reports its name and state', async t => {
    t.match(await get('/'), {
      service: 'ARCP',
      version: '2.1.2',
      status: 'healthy',
      dashboard: '/dashboard',
      docs: '/docs',
      implementation: { name: 'fastify-agent-registry' }
    })
    t.match(await get('/health'), {
      status: 'healthy',
      version: '2.1.2',
      uptime: 'operational',
      service: 'ARCP Registry',
      timestamp: /Z$/,
      agents: { total_registered: 0, alive_agents: 0, dead_agents: 0, agent_types: {}, embeddings_stored: 0 },
      storage: { redis: String, backup_storage: String },
      ai_services: { azure_openai: String, embeddings: false },
      features: {
        vector_search: false, redis_storage: false, metrics_tracking: true, jwt_authentication: true, websocket_broadcasts: true
      },
      performance: { redis_connected: false, ai_client_available: false }
    })
    t.same(await get('/health/live'), { status: 'live' })
    t.same(await get('/health/ready'), { status: 'ready' })
  })

  await t.test('public routes: the features of the public tier are listed', async t => {
    t.match(await get('/public/info'), {
      service: 'ARCP (Agent Registry & Control Protocol)',
      version: '2.1.2',
      capabilities: { search: true, vector_search: false, connection_facilitation: true },
      limits: { discover_max_limit: 100, search_max_limit: 50 },
      public_api: {
        available: true,
        endpoints: {
          discover: '/public/discover',
          search: '/public/search',
          connect: '/public/connect/{agent_id}',
          agent_details: '/public/agent/{agent_id}',
          websocket: '/public/ws'
        }
      }
    })
    t.same(await get('/public/agent_types'), { allowed_agent_types: ['security', 'monitoring', 'automation', 'networking', 'testing'] })
    const empty = await get('/public/stats')
    t.match(empty, {
      alive_agents: 0,
      total_agents: 0,
      agent_types: 0,
      system_status: 'operational',
      last_updated: /Z$/,
      features: {
        search: true, semantic_search: false, connection_facilitation: true
      }
    })
    t.notOk('available_types' in empty)
    await registry.agent('agent-a')
    await registry.agent('agent-b', { agent_type: 'Security' })
    t.match(await get('/public/stats'), { alive_agents: 2, total_agents: 2, agent_types: 2, available_types: ['testing', 'Security'] })
    t.match((await get('/health')).agents, { total_registered: 2, alive_agents: 2, agent_types: { testing: 1, Security: 1 } })
  })

  await t.test('public routes: endpoint URLs do not depend on the Host header', async t => {
    const answer = await registry.get(
      '/.well-known/arcp-configuration', { headers: { host: 'evil.example', 'x-forwarded-host': 'evil.example' } }
    )
    t.match(answer.body, {
      issuer: registry.base,
      token_endpoint: `${registry.base}/auth/agent/request_temp_token`,
      registration_endpoint: `${registry.base}/agents/register`,
      three_phase_registration_enabled: false,
      service_version: '2.1.2'
    })
    t.notMatch(answer.text, 'evil')
    const keys = await registry.get('/.well-known/jwks.json')
    t.same(keys.body, { keys: [] })
    t.equal(keys.headers.get('cache-control'), 'public, max-age=3600')
  })

  await t.test('public routes: every problem type has a page', async t => {
    for (const [type, [title, status]] of Object.entries(problemTypes)) t.same(await get(`/problems/${type}`), { type, title, status })
    for (const type of ['unknown', '__proto__', 'constructor', 'toString']) {
      t.equal(problemOf(t, await registry.get(`/problems/${type}`)), 'not-found')
    }
  })

  await t.test('public routes: every route is documented', async t => {
    const document = await get('/openapi.json')
    t.match(document.openapi, /^3\.1/)
    for (const path of [
      '/', '/health', '/agents/register', '/agents/{id}', '/agents', '/public/discover', '/tokens/mint', '/auth/login', '/ws-tickets'
    ]) t.ok(document.paths[path], path)
    t.match(
      document.paths['/agents/register'].post.requestBody.content['application/json'].schema.properties, { agent_id: { pattern: String } }
    )
    t.same(Object.entries<object>(document.paths).filter(([, item]) => 'put' in item), [])
    t.match(document.paths['/agents/events'].get.responses['200'].content, { 'text/event-stream': { schema: { type: 'string' } } })
    t.equal((await registry.get('/docs')).status, 200)
  })
})

t.test('public routes: the issuer is the configured one', async t => {
  const registry = await build(t, { publicUrl: 'https://registry.example/base/' }, answers)
  t.equal((await registry.get('/.well-known/arcp-configuration')).body.jwks_uri, 'https://registry.example/base/.well-known/jwks.json')
})

t.test('public routes: the default issuer is right before listening, and on IPv6', async t => {
  const app = fastify()
  t.teardown(() => app.close())
  await app.register(agentRegistry, withDefaults())
  t.equal((await app.inject('/.well-known/arcp-configuration')).json().issuer, 'http://localhost')
  const other = fastify()
  t.teardown(() => other.close())
  await other.register(agentRegistry, withDefaults())
  await other.listen({ port: 0, host: '::1' })
  t.match((await other.inject('/.well-known/arcp-configuration')).json().issuer, /^http:\/\/\[::1\]:\d+$/)
})

t.test('routes: groups can be disabled', async t => {
  const registry = await build(t, { routes: { root: false, health: false, wellKnown: false, docs: false } })
  for (const path of ['/', '/health', '/.well-known/jwks.json', '/docs', '/openapi.json']) {
    t.equal((await registry.get(path)).status, 404, path)
  }
  t.equal((await registry.get('/public/stats')).status, 200)
})

const verbs = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']

/** Paths of a registry with their methods. */
async function routeTable (options: AgentRegistryOptions): Promise<Map<string, Set<string>>> {
  const table = new Map<string, Set<string>>()
  const app = fastify()
  app.addHook('onRoute', function note ({ url, method, schema }: RouteOptions) {
    const isShown = !(schema as { hide?: boolean } | undefined)?.hide || url === '/openapi.json' || url.endsWith('/ws')
    if (!isShown || url.startsWith('/docs')) return
    for (const verb of [method].flat()) {
      if (verb !== 'HEAD' &&
      !([method].flat().length > 1)) table.set(url, (table.get(url) ?? new Set()).add(verb))
    }
  })
  await app.register(agentRegistry, withDefaults(options))
  await app.ready()
  await app.close()
  return table
}

t.test('routes: an unsupported method is 405 with the supported ones', async t => {
  const registry = await build(t, { routes: all }, answers)
  const table = await routeTable({ routes: all })
  t.ok(table.size > 25)
  for (const [path, served] of table) {
    for (const method of verbs.filter(verb => !served.has(verb))) {
      const answer = await registry.call(method, path.replace(/:\w+/, 'agent-one'), method === 'GET' ? {} : { raw: '{not json' })
      t.equal(answer.status, 405, `${method} ${path}`)
      t.equal(problemOf(t, answer), 'method-not-allowed')
      t.same(answer.headers.get('allow')!.split(', ').filter(verb => verb !== 'HEAD').sort(), [...served].sort())
    }
  }
})

t.test('not found', async t => {
  const paths = ['/nothing', '/agents/a/b/c', '/public', '/agents/agent-one/nothing', '/%3Cimg%20src=x%3E', '/problems', '/auth']
  await t.test('not found: below a prefix the registry answers with its problem', async t => {
    const registry = await build(t, { prefix: '/registry' }, answers)
    for (const path of paths) t.equal(problemOf(t, await registry.get(path)), 'not-found')
    t.equal((await registry.get('/.well-known/jwks.json')).status, 404, 'this path belongs to the origin')
    t.match((await registry.get('/agents')).body.type, /^\/registry\/problems\//)
    t.equal((await fetch(new URL('/nothing', registry.base))).status, 404)
  })

  await t.test('not found: the stand-alone server answers with its problem, with or without a trailing slash', async t => {
    const app = await buildApp({ options: withDefaults({ routes: all }), server: silentServer })
    t.teardown(() => app.close())
    await app.listen({ port: 0 })
    const registry = new Harness(app)
    for (const path of paths) {
      const answer = await registry.get(path)
      t.equal(problemOf(t, answer), 'not-found')
      t.equal(answer.body.instance, path)
    }
    t.equal((await registry.get('/public/stats/')).status, 200)
    t.match((await registry.get('/agents/%zz')).body.type, /request-error$/)
    t.match((await registry.get(`/agents/${'x'.repeat(300)}`)).body.type, /request-error$/)
    t.equal((await registry.call('OPTIONS', '/agents')).status, 404)
  })
})

t.test('problems: their types have the configured base', async t => {
  const registry = await build(t, { problemBase: 'https://problems.example/' }, answers)
  t.equal((await registry.get('/agents')).body.type, 'https://problems.example/authentication-failed')
})

t.test('bodies', async t => {
  const registry = await build(t, {}, answers)
  const admin = await registry.admin()
  const token = await registry.agent()

  await t.test('bodies: another media type is 415', async t => {
    for (const type of [
      'application/xml', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', 'application/json+x', 'nonsense'
    ]) {
      const answer = await registry.post('/agents/register', { ...admin, raw: 'a=b', headers: { ...admin.headers, 'content-type': type } })
      t.equal(answer.status, 415)
      t.equal(problemOf(t, answer), 'unsupported-media-type')
    }
  })

  await t.test('bodies: JSON may state its charset', async t => {
    const answer = await registry.post('/agents/register', {
      ...admin, body: registration('agent-two'), headers: { ...admin.headers, 'content-type': 'application/json; charset=utf-8' }
    })
    t.equal(answer.status, 200)
  })

  await t.test('bodies: an empty body counts as none', async t => {
    t.equal((await registry.post('/agents/agent-one/heartbeat', { token, raw: '' })).status, 200)
    t.equal((await registry.delete('/agents/agent-two', { ...admin, raw: ' \n' })).status, 200)
    t.equal((await registry.delete('/agents/agent-one', { token, raw: '' })).status, 200)
    t.equal(problemOf(t, await registry.post('/tokens/mint', { ...admin, raw: '' })), 'validation-failed')
    t.equal((await registry.post('/auth/logout', { ...admin, raw: '' })).status, 200)
  })

  await t.test('bodies: a wrong Content-Length is refused, and the server keeps working', async t => {
    const socket = connect(Number(new URL(registry.base).port), '127.0.0.1')
    socket.end('POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{}')
    await new Promise(resolve => socket.on('close', resolve).resume())
    t.equal((await registry.get('/health')).status, 200)
  })
})

t.test('headers and queries: values at the limit pass, and longer ones are refused', async t => {
  const registry = await build(t, { limits: { maxHeaderBytes: 1024, maxQueryParams: 3 } }, answers)
  const padded = (length: number) => registry.get('/public/stats', { headers: { 'x-padding': 'x'.repeat(length) } })
  const over = await padded(1024)
  t.equal(problemOf(t, over), 'headers-too-large')
  t.match(over.body, { status: 413, header_size: Number, max_header_size: 1024 })
  const room = 1024 - (over.body.header_size - 1024)
  t.equal((await padded(room)).status, 200)
  t.equal((await padded(room + 1)).body.header_size, 1025)
  for (const [query, status] of [
    ['', 200], ['?', 200], ['?a', 200], ['?a&b&c', 200], ['?a=1&a=2&a=3', 200], ['?a&b&c&d', 400], ['?&&&', 400]
  ] as const) {
    const answer = await registry.get(`/public/stats${query}`)
    t.equal(answer.status, status, query)
  }
  const many = await registry.get(`/public/stats?${'a&'.repeat(99)}a`)
  t.equal(problemOf(t, many), 'request-error')
  t.match(many.body, { query_param_count: 100, max_query_params: 3 })
})

const lists: Array<[name: string, addresses: AgentRegistryOptions['addresses'], refused: string[], welcome: string[]]> = [
  ['an address', { blocked: ['192.0.2.1'] }, ['192.0.2.1', '::ffff:192.0.2.1'], ['192.0.2.2', '2001:db8::1']],
  ['a network', { blocked: ['192.0.2.0/24', '2001:db8:1::/48'] }, ['192.0.2.200', '2001:db8:1::5'], ['192.0.3.1', '2001:db8:2::5']],
  ['an IPv6 address', { blocked: ['2001:db8::1'] }, ['2001:db8::1', '2001:0db8:0:0::0001'], ['2001:db8::2']],
  ['everything else', {
    defaultDeny: true,
    allowed: [
      '192.0.2.0/24', '2001:db8::/32'
    ]
  }, ['192.0.3.1', '2001:db9::1', 'nonsense'], ['192.0.2.1', '2001:db8::1']],
  ['one of the allowed addresses', {
    defaultDeny: true,
    allowed: [
      '192.0.2.0/24'
    ],
    blocked: ['192.0.2.66']
  }, ['192.0.2.66', '198.51.100.1'], ['192.0.2.1']],
  ['nothing with an empty deny list', { allowed: ['192.0.2.1'] }, [], ['198.51.100.1', 'nonsense']],
  ['all', { defaultDeny: true }, ['192.0.2.1', '::1'], []]
]
for (const [name, addresses, refused, welcome] of lists) {
  t.test(`address lists: ${name} is refused, upgrades too`, async t => {
    const registry = await build(t, { addresses: addresses! }, { ...answers, server: { trustProxy: true } })
    const from = (address: string) => registry.get('/public/stats', { headers: { 'x-forwarded-for': address } })
    for (const address of refused) {
      const answer = await from(address)
      t.equal(answer.status, 403, address)
      t.equal(problemOf(t, answer), 'insufficient-permissions')
      t.equal((await registry.socket('/public/ws', [], { headers: { 'x-forwarded-for': address } }).refused).status, 403)
    }
    for (const address of welcome) t.equal((await from(address)).status, 200, address)
  })
}

t.test('address lists: an invalid entry stops the start and is named', async t => {
  for (const wrong of [
    'nonsense', '192.0.2.256', '192.0.2.0/33', '192.0.2.0/', '192.0.2.0/1e1', '192.0.2.0/8/8', '/8', '2001:db8::/129', '2001:db8::x'
  ]) {
    for (const list of ['blocked', 'allowed']) {
      const app = fastify()
      const start = (async () => await app.register(agentRegistry, withDefaults({ addresses: { [list]: ['192.0.2.1', wrong] } })))()
      await t.rejects(start, { code: 'AGENT_REGISTRY_INVALID_OPTIONS', message: `addresses.${list}: '${wrong}'` })
      await app.close().catch(() => {})
    }
  }
})

t.test('closing: a host that closes answers or refuses every running request', async t => {
  let held = 0
  const app = fastify({ logger: false })
  await app.register(agentRegistry, withDefaults({ onRegister: () => new Promise(resolve => { held++; setTimeout(resolve, 200) }) }))
  await app.listen({ port: 0, host: '127.0.0.1' })
  const registry = new Harness(app)
  const tokens = await Promise.all(Array.from({ length: 10 }, (_, n) => registry.tempToken(`agent-${n}`)))
  const running = tokens.map((token, n) => registry.post('/agents/register', { token, body: registration(`agent-${n}`) }))
  await until(() => held === 10)
  const started = Date.now()
  const closing = app.close()
  const late = Array.from({ length: 10 }, () => registry.get('/public/stats').catch((error: Error) => error))
  const done: Answer[] = await Promise.all(running)
  for (const { status } of done) t.equal(status, 200)
  for (const answer of await Promise.all(late)) t.ok(answer instanceof Error || [200, 503].includes(answer.status))
  await closing
  t.ok(Date.now() - started < 20_000, 'idle keep-alive connections do not delay it')
})

t.test('draining: the server is alive and not ready', async t => {
  const app = fastify({ return503OnClosing: false })
  await app.register(agentRegistry, withDefaults({ sockets: { drainMs: 3000 } }))
  await app.listen({ port: 0, host: '127.0.0.1' })
  const registry = new Harness(app)
  const watchers = await Promise.all(Array.from({ length: 4 }, () => registry.watcher()))
  const closing = app.close()
  t.ok(await watchers[0]!.next('going_away'))
  const ready = await registry.get('/health/ready')
  t.same([ready.status, ready.body], [503, { status: 'draining' }])
  t.equal((await registry.get('/health/live')).status, 200)
  t.equal((await watchers[3]!.closed).code, 1001)
  await closing
})

t.test('responses: they match their schemas', async t => { t.same(answers.findings, []) })
