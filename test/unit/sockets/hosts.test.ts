import { createHash } from 'node:crypto'
import type { Server } from 'node:http'
import { Writable, type Duplex } from 'node:stream'
import fastifyWebsocket from '@fastify/websocket'
import fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import agentRegistry, { type AgentRegistryOptions } from '../../../src/index.js'
import { Client, Harness, withDefaults } from '../../support/harness.js'
import { assertAlive, expired, strangeFrames } from './helper.js'

interface Host {
  app: FastifyInstance
  /** Where registries are. */
  prefixes: string[]
  /** Paths of sockets that are the host's. */
  own: string[]
}

/** Routes of a host: each echoes, and says when it is closed. */
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

/** A listener of upgrades beside Fastify, for one path, as `ws` documents it. */
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
  t.equal(other.ws.protocol, '', 'nor is what we do not speak')
  t.equal((await registry.socket('/agents/ws', [`bearer.${token}`]).refused).status, 400)
  t.strictSame(await registry.socket('/agents/ws', ['agent-registry.json', `bearer.${expired(token)}`]).closed, { code: 4002, reason: 'Token expired' })
  client.send('x'.repeat(100_000))
  t.equal((await client.next('error')).code, 'message_too_large')
  client.send('x'.repeat(300_000))
  t.equal((await client.closed).code, 1009)
  await assertAlive(watcher)
  t.strictSame([...strangeFrames('public', watcher.all), ...strangeFrames('agents', client.all)], [])
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
  t.test(`in a host ${name} all tiers work, and what is the host's stays so`, async t => {
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

t.test('two registries in one app do not know of each other', async t => {
  const [one, two] = await listen(t, await hosts['with two registries']!()) as [Harness, Harness]
  const [first, second] = [await one.watcher(), await two.watcher()]
  const { body: { access_token: token } } = await one.register()
  await first.next('agents_update')
  await assertAlive(second)
  t.strictSame(await second.pending(200), [])
  t.equal((await one.get('/agents', { token })).body.length, 1)
})

t.test('where frames cannot be bounded below the tier, the log says so once for each', async t => {
  let log = ''
  const stream = new Writable({ write (chunk, _encoding, done) { log += chunk; done() } })
  const app = fastify({ logger: { level: 'warn', stream } })
  await app.register(fastifyWebsocket)
  app.websocketServer.on('connection', socket => { delete (socket as unknown as { _receiver: { _maxPayload?: number } })._receiver._maxPayload })
  await app.register(agentRegistry, options())
  const [registry] = await listen(t, { app: app as unknown as FastifyInstance, prefixes: [''], own: [] }) as [Harness]
  for (let i = 0; i < 3; i++) {
    const client = await registry.watcher()
    client.send('x'.repeat(300_000))
    t.equal((await client.next('error')).code, 'message_too_large', 'the tier still does')
  }
  t.equal(log.split('ws does not limit the frame size').length, 2)
})

t.test('an upgrade that another listener takes is left to it, and ours to us', async t => {
  for (const when of ['before', 'after'] as const) {
    const app = fastify()
    if (when === 'before') addListener(app.server)
    await registerIn(app, '')
    if (when === 'after') addListener(app.server)
    const [registry] = await listen(t, { app, prefixes: [''], own: [] }) as [Harness]
    const other = registry.socket('/other')
    t.equal(await other.next(), 'other', `registered ${when} ours`)
    await walkTiers(t, registry)
    other.terminate()
  }
})
