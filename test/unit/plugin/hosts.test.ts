import { createHash } from 'node:crypto'
import { once } from 'node:events'
import type { Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { type Duplex, Writable } from 'node:stream'
import fastifyJwt from '@fastify/jwt'
import rateLimit from '@fastify/rate-limit'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import fastifyWebsocket from '@fastify/websocket'
import fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import agentRegistry, { type AgentRegistryOptions } from '../../../src/index.js'
import { build, Client, Harness, problemOf, registration, withDefaults } from '../../support/harness.js'
import { assertAlive, expired, undocumentedFrames } from '../sockets/helper.js'

const hostSecret = 'the secret of the host, which is another one'

/** A listening host, set up by `prepare`. */
async function host (t: Test, prepare: (app: FastifyInstance) => Promise<unknown>, server: FastifyServerOptions = {}): Promise<Harness> {
  const app = fastify(server)
  t.teardown(() => app.close())
  await prepare(app)
  await app.listen({ port: 0, host: '127.0.0.1' })
  return new Harness(app)
}

const ours = (app: FastifyInstance, options: AgentRegistryOptions = {}) => app.register(agentRegistry, withDefaults(options))

/** Registers, reads and unregisters an agent, which covers tokens, validation and responses. */
async function walk (t: Test, registry: Harness, id = 'agent-one') {
  const { status, body } = await registry.register(id)
  t.equal(status, 200, 'the agent registers')
  t.equal((await registry.get(`/agents/${id}`, { token: body.access_token })).body.agent_id, id)
  t.equal((await registry.get('/public/stats')).status, 200)
  t.equal((await registry.delete(`/agents/${id}`, { token: body.access_token })).status, 200)
}

/** Tokens of the host: signed, verified, and refused with another secret. */
function addHostRoute (app: FastifyInstance) {
  app.get('/me', async function me (request) {
    await request.jwtVerify()
    return request.user
  })
}

async function checkHostTokens (t: Test, registry: Harness) {
  const token = registry.app.jwt.sign({ sub: 'somebody' })
  t.equal((await registry.get('/me', { token })).body.sub, 'somebody')
  const foreign = await registry.agent('agent-two')
  t.equal((await registry.get('/me', { token: foreign })).status, 401, 'the host refuses a token of the registry')
  t.equal((await registry.get('/agents/agent-two', { token })).status, 401, 'the registry refuses a token of the host')
}

t.test('host plugins: @fastify/jwt, default or namespaced, before or after the registry', async t => {
  await t.test('@fastify/jwt default, registered before', async t => {
    const registry = await host(t, async app => {
      await app.register(fastifyJwt, { secret: hostSecret })
      await ours(app)
      addHostRoute(app)
    })
    await walk(t, registry)
    await checkHostTokens(t, registry)
    t.same(Object.keys(registry.app.jwt).filter(name => name.startsWith('agentRegistry')), [],
      'the signer of the registry is not passed to the plugins of the host')
  })

  await t.test('@fastify/jwt default, registered after', async t => {
    const registry = await host(t, async app => {
      await ours(app)
      await app.register(fastifyJwt, { secret: hostSecret })
      addHostRoute(app)
    })
    await walk(t, registry)
    await checkHostTokens(t, registry)
  })

  await t.test('@fastify/jwt namespaced, registered before and after', async t => {
    const registry = await host(t, async app => {
      await app.register(fastifyJwt, { secret: hostSecret, namespace: 'first' })
      await ours(app)
      await app.register(fastifyJwt, { secret: hostSecret, namespace: 'second' })
      app.get('/me', async request => (request as unknown as { firstJwtVerify (): Promise<object> }).firstJwtVerify())
    })
    await walk(t, registry)
    const jwt = registry.app.jwt as unknown as Record<string, FastifyInstance['jwt']>
    t.equal((await registry.get('/me', { token: jwt.first!.sign({ sub: 'somebody' }) })).body.sub, 'somebody')
    t.same(Object.keys(jwt), ['first', 'second'])
  })

  await t.test('host plugins: two sibling scopes of such a host have a registry of the same name', async t => {
    const registry = await host(t, async app => {
      await app.register(fastifyJwt, { secret: hostSecret })
      for (const prefix of ['/red', '/blue']) await app.register(async scope => { await ours(scope, { prefix }) })
    })
    for (const prefix of ['/red', '/blue']) await walk(t, new Harness(registry.app, prefix))
  })
})

t.test('host plugins: decorators of the host with common names keep their meaning', async t => {
  const names = ['registry', 'store', 'core', 'sockets', 'hub', 'authenticate', 'swagger', 'wsServer', 'jwtSign']
  const registry = await host(t, async app => {
    app.decorateRequest('user', '')
    app.decorateRequest('principal', null)
    app.decorateReply('problem', null)
    for (const name of names) app.decorate(name, () => `the host's ${name}`)
    app.addHook('onRequest', async request => { request.user = 'the host' })
    app.get('/me', async request => ({ user: request.user, names: names.map(name => (app.getDecorator(name) as () => string)()) }))
    await ours(app, { routes: { docs: true } })
  })
  await walk(t, registry)
  const { body } = await registry.get('/me')
  t.same(body, { user: 'the host', names: names.map(name => `the host's ${name}`) })
  t.equal((await registry.get('/openapi.json')).body.info.title, 'fastify-agent-registry')
})

t.test('host plugins: @fastify/websocket in the same scope before, after or in a sibling scope', async t => {
  const orders: Record<string, (app: FastifyInstance) => Promise<unknown>> = {
    before: async app => { await app.register(fastifyWebsocket); await ours(app) },
    sibling: async app => {
      await ours(
        app
      ); await app.register(async scope => { await scope.register(fastifyWebsocket); addEcho(scope) })
    },
    after: async app => { await ours(app); await app.register(fastifyWebsocket); addEcho(app) }
  }
  function addEcho (app: FastifyInstance) {
    app.get('/echo', { websocket: true }, socket => { socket.on('message', data => socket.send(String(data))) })
  }
  for (const [order, prepare] of Object.entries(orders)) {
    await t.test(order, async t => {
      const registry = await host(t, prepare)
      const watcher = await registry.watcher()
      watcher.send({ type: 'ping' })
      t.equal((await watcher.next('pong')).type, 'pong')
      if (order === 'before') return watcher.close()
      const echo = registry.socket('/echo')
      await echo.opened
      echo.send('{"type":"echo"}')
      t.equal((await echo.next('echo')).type, 'echo')
      echo.close()
      watcher.close()
    })
  }
})

t.test('host plugins: @fastify/rate-limit counts registry routes too, and refuses with problem documents', async t => {
  const registry = await host(t, async app => {
    await app.register(rateLimit, { max: 3, timeWindow: '1 minute' })
    await ours(app)
    app.get('/mine', async () => 'mine')
  })
  for (let n = 0; n < 3; n++) t.equal((await registry.get('/public/stats')).status, 200)
  const refused = await registry.get('/public/stats')
  t.equal(refused.status, 429)
  t.ok(Number(refused.headers.get('retry-after')) > 0)
  t.equal(problemOf(t, refused), 'rate-limit-exceeded')
})

t.test('host plugins: the documents of the host stay its own in each format of @fastify/swagger', async t => {
  const forms = {
    'Swagger 2': { swagger: { info: { title: 'The host', version: '9' } } },
    'OpenAPI 3.0': { openapi: { openapi: '3.0.3', info: { title: 'The host', version: '9' } } },
    'OpenAPI 3.1': { openapi: { openapi: '3.1.0', info: { title: 'The host', version: '9' } } }
  }
  for (const [form, options] of Object.entries(forms)) {
    await t.test(form, async t => {
      const registry = await host(t, async app => {
        await app.register(swagger, options)
        await app.register(swaggerUi, { routePrefix: '/documentation' })
        await ours(app, { routes: { docs: true } })
        app.get('/mine', { schema: { response: { 200: { type: 'string' } } } }, async () => 'mine')
      })
      await checkDocuments(t, registry)
    })
  }
})

async function checkDocuments (t: Test, registry: Harness) {
  const theirs = await registry.get('/documentation/json')
  t.equal(theirs.status, 200)
  t.same([theirs.body.info.title, '/mine' in theirs.body.paths], ['The host', true])
  const own = await registry.get('/openapi.json')
  t.equal(own.status, 200)
  t.equal(own.body.openapi, '3.1.0')
  t.same(['/mine' in own.body.paths, '/agents/register' in own.body.paths], [false, true])
  t.notOk(Object.keys(own.body.paths).some(path => path.startsWith('/docs')))
  for (const page of ['/documentation', '/docs']) {
    const answer = await registry.get(`${page}/`)
    t.equal(answer.status, 200, page)
    t.match(answer.text, /swagger-ui/, page)
  }
  t.match((await registry.get('/docs/json')).body.info.title, 'fastify-agent-registry')
}

t.test('host plugins: the error handler of the host serves its routes, ours serves the registry', async t => {
  const registry = await host(t, async app => {
    app.setErrorHandler((error: Error, _request, reply) => { reply.code(418).send({ host: error.message }) })
    app.get('/broken', async () => { throw new Error('broken') })
    await ours(app, { prefix: '/registry' })
  })
  const mine = await registry.get('/broken')
  t.same([mine.status, mine.body], [418, { host: 'broken' }])
  t.equal(problemOf(t, await registry.get('/registry/agents')), 'authentication-failed')
})

t.test('host plugins: a not-found handler of the host serves paths outside the prefix', async t => {
  const prepare = (prefix: string) => async (app: FastifyInstance) => {
    app.setNotFoundHandler((_request, reply) => { reply.code(404).send({ host: 'nothing' }) })
    await ours(app, { prefix })
  }
  const prefixed = await host(t, prepare('/registry'))
  t.same((await prefixed.get('/elsewhere')).body, { host: 'nothing' })
  t.same((await prefixed.get('/registryelse')).body, { host: 'nothing' })
  t.equal(problemOf(t, await prefixed.get('/registry/elsewhere')), 'not-found')
  const bare = await host(t, prepare(''))
  t.same((await bare.get('/agents/one/two/three')).body, { host: 'nothing' }, 'without a prefix the handler of the host stays')
})

t.test('host plugins: validator compilers and body parsers of the host do not affect registry routes', async t => {
  const strange = () => { throw new Error('not made for this schema') }
  const registry = await host(t, async app => {
    app.setValidatorCompiler(strange)
    app.setSerializerCompiler(strange)
    app.setSchemaErrorFormatter(() => new Error('in the words of the host'))
    app.addContentTypeParser('application/merge-patch+json', (_request, _payload, done) => done(null, 'parsed by the host'))
    app.addContentTypeParser('*', (_request, _payload, done) => done(null, 'anything'))
    await ours(app)
    app.post('/mine', async request => request.body)
  })
  const token = await registry.agent()
  const patched = await registry.patch(
    '/agents/agent-one', { token, body: { name: 'Another Name' }, headers: { 'content-type': 'application/merge-patch+json' } }
  )
  t.same([patched.status, patched.body?.name], [200, 'Another Name'])
  const wrong = await registry.post('/auth/set_pin', { token: (await registry.admin()).token, body: {} })
  t.not(wrong.status, 500)
  const theirs = await registry.post('/mine', { raw: 'x', headers: { 'content-type': 'application/merge-patch+json' } })
  t.equal(theirs.text, 'parsed by the host')
  t.equal((await registry.post('/mine', { raw: 'x', headers: { 'content-type': 'text/strange' } })).text, 'anything')
})

t.test('host plugins: hooks of the host that refuse return problem documents', async t => {
  const registry = await build(t, {}, {
    before: app => {
      app.addHook('onRequest', async request => {
        if (request.headers['x-blocked']) throw Object.assign(new Error('Not from you'), { statusCode: 403 })
      })
      app.addHook('preHandler', async request => { if (request.headers['x-broken']) throw new Error('a secret of the host') })
    }
  })
  const blocked = await registry.get('/public/stats', { headers: { 'x-blocked': '1' } })
  t.equal(blocked.status, 403)
  t.match(blocked.headers.get('content-type'), /problem\+json/)
  const broken = await registry.get('/public/stats', { headers: { 'x-broken': '1' } })
  t.equal(problemOf(t, broken), 'internal-error')
  t.notMatch(broken.text, /a secret of the host/)
  const socket = registry.socket('/public/ws', [], { headers: { 'x-blocked': '1' } })
  t.equal((await socket.refused).status, 403)
})

t.test('router settings of a host', async t => {
  const settings: Record<string, FastifyServerOptions> = {
    'no routes for HEAD': { exposeHeadRoutes: false },
    'trailing slashes ignored': { routerOptions: { ignoreTrailingSlash: true } },
    'paths in any case': { routerOptions: { caseSensitive: false } },
    'small bodies and strict JSON': { bodyLimit: 10, onProtoPoisoning: 'remove' },
    'HTTP requests are answered while closing': { return503OnClosing: false }
  }
  for (const [name, server] of Object.entries(settings)) {
    await t.test(name, async t => {
      const registry = await host(t, app => ours(app) as unknown as Promise<unknown>, server)
      await walk(t, registry)
      t.equal((await registry.call('PUT', '/agents/register')).status, 405)
      const poisoned = await registry.post('/agents/register', {
        token: await registry.tempToken(),
        raw: JSON.stringify(registration())
          .replace('"metadata":{', '"metadata":{"__proto__":{"x":1},')
      })
      t.ok([400, 422].includes(poisoned.status), 'a poisoned body is refused whatever the host does with its own bodies')
    })
  }
})

t.test('host: sockets are reachable on IPv6 too', async t => {
  const app = fastify()
  t.teardown(() => app.close())
  await ours(app)
  try {
    await app.listen({ port: 0, host: '::1' })
  } catch (error) {
    t.match(error, { code: /EADDRNOTAVAIL|EAFNOSUPPORT/ })
    return
  }
  const { port } = app.server.address() as AddressInfo
  const client = new Client(`ws://[::1]:${port}/public/ws`)
  t.equal((await client.next('welcome')).type, 'welcome')
  client.close()
  t.equal((await app.inject('/.well-known/arcp-configuration')).json().issuer, `http://[::1]:${port}`)
})

t.test('host: a refused or ignored upgrade does not delay the close of the host', async t => {
  const registry = await host(t, async app => {
    app.get('/slow', async () => new Promise(() => {}))
    await ours(app, { agentsWs: { timeoutMs: 300 } })
  })
  const { port } = registry.app.server.address() as AddressInfo
  for (const path of ['/nowhere', '/slow']) {
    const socket = connect(port, '127.0.0.1')
    socket.write(
      `GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n'
    )
    socket.resume()
    await once(socket, 'close')
    t.ok(socket.destroyed, path)
  }
})

interface Host {
  app: FastifyInstance
  /** Prefixes of the registries. */
  prefixes: string[]
  /** Paths of the sockets of the host. */
  own: string[]
}

/** Socket routes of a host that echo messages and report closes. */
function addEcho (scope: FastifyInstance, path: string) {
  scope.get(path, { websocket: true }, function echo (socket) {
    socket.on('message', data => socket.send(`host: ${data}`))
  })
}

const options = (more: AgentRegistryOptions = {}) => withDefaults({ sockets: { drainMs: 300 }, ...more })

async function registerIn (app: FastifyInstance, prefix: string, decorateAs = 'agentRegistry') {
  await app.register(agentRegistry, options({ prefix, decorateAs }))
}

async function addSibling (app: FastifyInstance) {
  await app.register(async scope => {
    await scope.register(fastifyWebsocket)
    addEcho(scope, '/host/ws')
  })
}

/** An upgrade listener for one path beside Fastify, as in the documentation of `ws`. */
function addListener (server: Server) {
  server.on('upgrade', (request, socket: Duplex) => {
    if (request.url !== '/other') return
    const accept = createHash('sha1').update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`)
    socket.write(Buffer.from([0x81, 5, ...Buffer.from('other')]))
    socket.on('error', () => socket.destroy()).on('end', () => socket.destroy()).resume()
  })
}

const hosts: Record<string, () => Promise<Host>> = {
  'without sockets of its own': async () => {
    const app = fastify()
    await registerIn(app, '')
    return { app, prefixes: [''], own: [] }
  },
  'with @fastify/websocket in the same scope': async () => {
    const app = fastify()
    await app.register(fastifyWebsocket)
    addEcho(app, '/host/ws')
    await registerIn(app, '')
    return { app, prefixes: [''], own: ['/host/ws'] }
  },
  'with @fastify/websocket in a sibling scope before': async () => {
    const app = fastify()
    await addSibling(app)
    await registerIn(app, '/registry')
    return { app, prefixes: ['/registry'], own: ['/host/ws'] }
  },
  'with @fastify/websocket in a sibling scope after': async () => {
    const app = fastify()
    await registerIn(app, '')
    await addSibling(app)
    return { app, prefixes: [''], own: ['/host/ws'] }
  },
  'with two registries': async () => {
    const app = fastify()
    await registerIn(app, '/one')
    await registerIn(app, '/two', 'second')
    return { app, prefixes: ['/one', '/two'], own: [] }
  }
}

async function listen (t: Test, { app, prefixes }: Host): Promise<Harness[]> {
  await app.listen({ port: 0, host: '127.0.0.1' })
  t.teardown(() => app.close())
  return prefixes.map(prefix => new Harness(app, prefix))
}

async function walkTiers (t: Test, registry: Harness) {
  const watcher = await registry.watcher()
  const { body: { access_token: token } } = await registry.register()
  t.equal((await watcher.next('agents_update')).data.total_count, 1)
  const client = registry.socket('/agents/ws', ['agent-registry.json', `bearer.${token}`])
  t.equal((await client.next()).type, 'auth_success')
  t.equal(client.ws.protocol, 'agent-registry.json', 'the token is not echoed')
  const other = registry.socket('/public/ws', ['something-else'])
  await other.closed
  t.equal(other.ws.protocol, '', 'nor is an unknown subprotocol')
  t.equal((await registry.socket('/agents/ws', [`bearer.${token}`]).refused).status, 400)
  t.strictSame(
    await registry.socket('/agents/ws', ['agent-registry.json', `bearer.${expired(token)}`]).closed, { code: 4002, reason: 'Token expired' }
  )
  client.send('x'.repeat(100_000))
  t.equal((await client.next('error')).code, 'message_too_large')
  client.send('x'.repeat(300_000))
  t.equal((await client.closed).code, 1009)
  await assertAlive(watcher)
  t.strictSame([...undocumentedFrames('public', watcher.all), ...undocumentedFrames('agents', client.all)], [])
}

/** An open socket of the host that answers. */
async function openOwn (app: FastifyInstance, path: string): Promise<Client> {
  const client = new Harness(app).socket(path)
  await client.opened
  return client
}

async function assertEcho (t: Test, client: Client) {
  const large = 'y'.repeat(400_000)
  for (const text of ['hello', large]) {
    client.send(text)
    t.ok(await client.next() === `host: ${text}`, 'the host has its own limits')
  }
}

for (const [name, make] of Object.entries(hosts)) {
  t.test(`host sockets: in a host ${name} all tiers work, and sockets of the host are unchanged`, async t => {
    const host = await make()
    const registries = await listen(t, host)
    const own = await Promise.all(host.own.map(path => openOwn(host.app, path)))
    for (const registry of registries) await walkTiers(t, registry)
    for (const client of own) await assertEcho(t, client)
    const clients = await Promise.all(registries.map(registry => registry.watcher()))
    const started = Date.now()
    const closing = host.app.close()
    for (const client of clients) {
      t.match(await client.next('going_away'), { retryAfterMs: /\d+/ })
      t.strictSame(await client.closed, { code: 1001, reason: 'Going away' })
    }
    for (const client of own) t.equal((await client.closed).code, 1005, 'closed by the host, in its own way')
    await closing
    t.ok(Date.now() - started < 10_000)
  })
}

t.test('host sockets: two registries in one app are isolated', async t => {
  const [one, two] = await listen(t, await hosts['with two registries']!()) as [Harness, Harness]
  const [first, second] = [await one.watcher(), await two.watcher()]
  const { body: { access_token: token } } = await one.register()
  await first.next('agents_update')
  await assertAlive(second)
  t.strictSame(await second.pending(200), [])
  t.equal((await one.get('/agents', { token })).body.length, 1)
})

t.test('host sockets: a warning is logged once per tier where frame sizes cannot be bounded by ws', async t => {
  let log = ''
  const stream = new Writable({ write (chunk, _encoding, done) { log += chunk; done() } })
  const app = fastify({ logger: { level: 'warn', stream } })
  await app.register(fastifyWebsocket)
  app.websocketServer.on(
    'connection', socket => { delete (socket as unknown as { _receiver: { _maxPayload?: number } })._receiver._maxPayload }
  )
  await app.register(agentRegistry, options())
  const [registry] = await listen(t, { app: app as unknown as FastifyInstance, prefixes: [''], own: [] }) as [Harness]
  for (let i = 0; i < 3; i++) {
    const client = await registry.watcher()
    client.send('x'.repeat(300_000))
    t.equal((await client.next('error')).code, 'message_too_large', 'the tier still bounds them')
  }
  t.equal(log.split('ws does not limit the frame size').length, 2)
})

t.test('host sockets: upgrades of another listener are left to it', async t => {
  for (const when of ['before', 'after'] as const) {
    const app = fastify()
    if (when === 'before') addListener(app.server)
    await registerIn(app, '')
    if (when === 'after') addListener(app.server)
    const [registry] = await listen(t, { app, prefixes: [''], own: [] }) as [Harness]
    const other = registry.socket('/other')
    t.equal(await other.next(), 'other', `registered ${when} the registry`)
    await walkTiers(t, registry)
    other.terminate()
  }
})
