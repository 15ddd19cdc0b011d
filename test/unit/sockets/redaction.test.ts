import { Writable } from 'node:stream'
import fastify, { type FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import agentRegistry from '../../../src/index.js'
import { Harness, keys, password, until, withDefaults } from '../../support/harness.js'
import { expired, forge, unsigned } from './helper.js'

interface Sink { text: string, stream: Writable }

function sink (): Sink {
  const log: Sink = { text: '', stream: new Writable({ write (chunk, _encoding, done) { log.text += chunk; done() } }) }
  return log
}

/** Every way of naming oneself, rightly and wrongly; the secrets that were used. */
async function walk (registry: Harness): Promise<string[]> {
  const { body: { access_token: token } } = await registry.register()
  const ticket = (await registry.post('/ws-tickets', { token, body: {} })).body.ticket
  const temp = await registry.tempToken('agent-two')
  const admin = await registry.admin()
  const tokens = [token, admin.token, temp, expired(token), unsigned(token), forge(token, {}, 'another secret of thirty-two characters'), 'plain-secret-of-nobody']
  const socket = (...args: Parameters<Harness['socket']>) => {
    const client = registry.socket(...args)
    return Promise.race([client.next(), client.closed, client.refused])
  }
  for (const secret of tokens) {
    await socket(`/agents/ws?token=${secret}`)
    await socket('/agents/ws', [], { headers: { authorization: `Bearer ${secret}` } })
    await socket('/agents/ws', ['agent-registry.json', `bearer.${secret}`])
    await socket('/agents/ws', [`bearer.${secret}`])
    await socket(`/public/ws?token=${secret}`)
    await socket(`/public/info?token=${secret}`)
    await registry.get(`/agents?token=${secret}`)
    await registry.post(`/tokens/validate?token=${secret}`)
    const first = registry.socket('/agents/ws')
    await first.next('auth_required')
    first.send({ token: secret })
    await first.next()
    first.close()
  }
  for (const one of [ticket, ticket, 'ticket-of-nobody']) await socket(`/agents/ws?ticket=${one}`)
  await registry.post('/auth/login', { body: { username: 'admin', password: 'wrong-password-here' }, headers: { 'x-client-fingerprint': 'x' } })
  await registry.get('/agents/agent-one', { token })
  return [...tokens, ticket, 'ticket-of-nobody', keys.plain, password, 'wrong-password-here']
}

async function serve (t: Test, log: Sink, logger: object): Promise<Harness> {
  const app = fastify({ logger: { level: 'trace', stream: log.stream, ...logger } } as FastifyServerOptions)
  await app.register(agentRegistry, withDefaults({ sockets: { maxUnauthenticatedPerAddress: 64 } }))
  app.get('/hosts-own', async () => 'hello')
  await app.listen({ port: 0, host: '127.0.0.1' })
  t.teardown(() => app.close())
  return new Harness(app)
}

const loggers: Record<string, object> = {
  'the default request log': {},
  'a request log of the host': { serializers: { req: ({ url, headers }: { url: string, headers: Record<string, string> }) => ({ address: url, agent: headers['user-agent'] }) } },
  'a request log that is text': { serializers: { req: ({ method, url }: { method: string, url: string }) => `${method} ${url}` } },
  'a request log that shows nothing': { serializers: { req: () => null } }
}

for (const [name, logger] of Object.entries(loggers)) {
  t.test(`in a host with ${name} no secret is logged, whether or not it was right`, async t => {
    const log = sink()
    const registry = await serve(t, log, logger)
    const secrets = await walk(registry)
    await until(() => log.text.includes('incoming request'))
    for (const secret of secrets) t.notOk(log.text.includes(secret), `${secret.slice(0, 12)}…`)
    if (!name.endsWith('nothing')) t.match(log.text, '/agents/ws', 'the path is')
    await registry.get('/hosts-own?page=2')
    t.equal(log.text.includes('/hosts-own?page=2'), !name.endsWith('nothing'), "the host's own routes are logged as before")
  })
}

t.test('a logger that is not pino is given requests without their query', async t => {
  const lines: string[] = []
  const write = (serializers: Record<string, (value: unknown) => unknown>) => (details: Record<string, unknown>, message?: string) => {
    const shown = Object.fromEntries(Object.entries(details).map(([key, value]) => [key, serializers[key]?.(value)]))
    lines.push(`${message} ${JSON.stringify(shown)}`)
  }
  const loggerOf = (serializers = {}): object => {
    const log = write(serializers)
    return { level: 'info', info: log, error: log, debug: log, fatal: log, warn: log, trace: log, silent: log, child: (_bindings: object, options?: { serializers?: object }) => loggerOf(options?.serializers) }
  }
  const app = fastify({ loggerInstance: loggerOf() } as FastifyServerOptions)
  await app.register(agentRegistry, withDefaults())
  await app.listen({ port: 0, host: '127.0.0.1' })
  t.teardown(() => app.close())
  await new Harness(app as unknown as Harness['app']).get('/public/info?token=secret')
  t.match(lines.find(line => line.startsWith('incoming request')), /"url":"\/public\/info"/)
  t.notOk(lines.join().includes('token=secret'))
})

t.test('in a scope of the host with serializers of its own no query is logged either', async t => {
  const log = sink()
  const app = fastify({ logger: { level: 'info', stream: log.stream } } as FastifyServerOptions)
  await app.register(async function hostsScope (scope) {
    await scope.register(agentRegistry, withDefaults())
  }, { logSerializers: { req: ({ url }: { url: string }) => `host ${url}`, trace: (value: unknown) => `traced ${value}` } })
  await app.listen({ port: 0, host: '127.0.0.1' })
  t.teardown(() => app.close())
  await new Harness(app).get('/public/info?token=secret')
  await until(() => log.text.includes('request completed'))
  t.match(log.text, '/public/info')
  t.notOk(log.text.includes('token=secret'))
})
