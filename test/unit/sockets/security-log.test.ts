import { Writable } from 'node:stream'
import fastify, { type FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import agentRegistry from '../../../src/index.js'
import { build, fingerprint, Harness, type Json, keys, password, registration, until, withDefaults } from '../../support/harness.js'
import { answersTo, dashboard } from './dashboard-helper.js'
import { expired, forge, unsigned } from './helper.js'

const pin = '8-4-2-9-7-5'
const wrongPin = '3-1-4-1-5-9'
const pinHeader = (text: string) => ({ 'x-client-fingerprint': fingerprint, 'x-session-pin': text })

/** A registry in an app whose log is sent to the dashboards, and the lines of that log. */
async function logged (t: Test, options: object = {}): Promise<{ registry: Harness, lines: string[] }> {
  const lines: string[] = []
  const log: { sink?: { write (line: string): void } } = {}
  function write (line: string) {
    lines.push(line)
    log.sink?.write(line)
  }
  const registry = await build(
    t, { dashboardWs: { maxConnections: 50, intervalMs: 60_000 }, ...options }, { server: { logger: { level: 'info', stream: { write } } } }
  )
  log.sink = registry.app.agentRegistry.logSink
  return { registry, lines }
}

/** The dashboard log, oldest entry first. */
async function entries (registry: Harness, sources = ['auth', 'security']): Promise<Json[]> {
  const { token } = await registry.admin('log-reader')
  const client = await dashboard(registry, token)
  const frames = await answersTo(client, { type: 'refresh_request' })
  client.close()
  return frames.findLast(({ type }) => type === 'logs').data.logs.filter(({ source }: Json) => sources.includes(source)).reverse()
}

const countOf = (lines: string[], text: string) => lines.filter(line => line.includes(`"msg":"${text}"`)).length

t.test('security log: both logs have sessions, PINs, refusals and revocations once each, without secrets', async t => {
  const { registry, lines } = await logged(t)
  const { token, headers } = await registry.admin()
  const first = await registry.agent('agent-one')
  const second = await registry.agent('agent-two')
  await registry.post('/auth/set_pin', { token, headers, body: { pin } })
  await registry.post('/auth/verify_pin', { token, headers, body: { pin } })
  await registry.post('/auth/verify_pin', { token, headers, body: { pin: wrongPin } })
  await registry.delete('/agents/agent-one', { token: second })
  await registry.get('/metrics', { token: first })
  await registry.post('/tokens/revoke', { token, headers: pinHeader(pin), body: { token: first } })
  await registry.post('/tokens/revoke', { token, headers: pinHeader(pin), body: { agent_id: 'agent-two' } })
  await registry.post('/tokens/revoke', { token, headers: pinHeader(wrongPin), body: { agent_id: 'agent-two' } })
  await registry.post('/auth/login', { headers, body: { username: 'admin', password: 'wrong-password-here' } })
  await registry.post('/auth/logout', { token, headers })
  const expected: Array<[message: string, members: object]> = [
    ['PIN set: admin', { level: 'INFO', source: 'auth', event_type: 'pin_set' }],
    ['PIN verified: admin', { level: 'INFO', source: 'auth', event_type: 'pin_verify_success' }],
    ['Wrong PIN: admin', { level: 'WARN', source: 'auth', event_type: 'pin_verify_failed' }],
    ['Permission denied: DELETE /agents/:id', {
      level: 'WARN', source: 'security', event_type: 'permission_denied', user_id: 'agent-two', user_role: 'agent'
    }],
    ['Permission denied: GET /metrics', { level: 'WARN', source: 'security', user_id: 'agent-one' }],
    ['Token revoked: agent-one', { level: 'WARN', source: 'security', event_type: 'token_revoked', user_id: 'admin' }],
    ['Tokens of an agent revoked: agent-two', { level: 'WARN', source: 'security', event_type: 'agent_revoked', user_id: 'admin' }],
    ['Admin login failed: admin', { level: 'WARN', source: 'auth', event_type: 'login_failed' }],
    ['Logout: admin', { level: 'INFO', source: 'auth', event_type: 'logout', user_id: 'admin' }]
  ]
  const found = await entries(registry)
  for (const [message, members] of expected) {
    const [entry, ...others] = found.filter(entry => entry.message === message && entry.event_type !== 'login_success')
    t.match(entry, { ...members, client_ip: '127.0.0.1' }, message)
    const times = /PIN verified|Wrong PIN/.test(message) ? others.length + 1 : 1
    t.equal(others.length, times - 1)
    t.equal(countOf(lines, message), times, `${message}: equally often in the process log`)
  }
  t.equal(found.filter(({ event_type: type }) => type === 'pin_verify_success').length, 3, 'revoking requires the PIN too')
  const text = JSON.stringify(found) + lines.join('\n')
  for (const secret of [pin, wrongPin, token, first, second, password, 'wrong-password-here', keys.plain]) {
    t.notOk(text.includes(secret), secret.slice(0, 8))
  }
})

t.test('security log: a lockout is logged once, however long the attempts continue', async t => {
  const { registry, lines } = await logged(t, { attempts: { burst: 3 } })
  const admin = await registry.admin('other')
  const login = () =>
    registry.post('/auth/login', { headers: { 'x-client-fingerprint': 'x' }, body: { username: 'root', password: 'wrong-password-here' } })
  const key = () => registry.post(
    '/auth/agent/request_temp_token', { body: { agent_id: 'agent-one', agent_type: 'testing', agent_key: 'no-such-key-here' } }
  )
  await registry.post('/auth/set_pin', { ...admin, body: { pin } })
  const guess = () => registry.post('/auth/verify_pin', { ...admin, body: { pin: wrongPin } })
  for (let index = 0; index < 12; index++) {
    for (const run of [key, guess]) t.equal((await run()).status, index < 3 ? 401 : 429)
  }
  const reader = dashboard(registry, (await registry.admin('log-reader')).token)
  for (let index = 0; index < 12; index++) t.equal((await login()).status, index < 3 ? 401 : 429)
  const frames = await answersTo(await reader, { type: 'refresh_request' })
  const found: Json[] = frames.findLast(({ type }) => type === 'logs').data.logs
  const lockouts = found.filter(({ event_type: type }) => type === 'lockout').reverse()
  t.match(lockouts, [
    { level: 'ERR', source: 'security', message: 'Too many failed attempts: key', attempt_type: 'key', client_ip: '127.0.0.1' },
    { attempt_type: 'pin' },
    { attempt_type: 'login', user_id: 'root' }
  ])
  t.equal(lockouts.length, 3)
  for (const { retry_after: seconds } of lockouts) t.ok(seconds > 0 && seconds <= 300)
  for (const type of ['login_failed', 'temp_token_failed', 'pin_verify_failed']) {
    t.equal(found.filter(({ event_type: other }) =>
      other === type).length, 3, type)
  }
  for (const kind of ['key', 'pin', 'login']) t.equal(countOf(lines, `Too many failed attempts: ${kind}`), 1)
  t.notMatch(JSON.stringify(found) + lines.join('\n'), new RegExp([pin, wrongPin, 'no-such-key-here', 'wrong-password-here'].join('|')))
})

t.test('security log: refusals on sockets are logged too', async t => {
  const { registry } = await logged(t)
  const temp = await registry.tempToken('agent-temp')
  const agent = await registry.agent('agent-one')
  const refused = [
    registry.socket('/agents/ws', [], { headers: { authorization: `Bearer ${temp}` } }),
    registry.socket('/dashboard/ws', [], { headers: { authorization: `Bearer ${temp}` } })
  ]
  const late = registry.socket('/agents/ws')
  await late.next('auth_required')
  late.send({ token: temp })
  const page = registry.socket('/dashboard/ws')
  await page.opened
  page.send({ type: 'auth', token: agent })
  for (const client of [...refused, late, page]) await client.closed
  const denied = (await entries(registry)).filter(({ event_type: type }) => type === 'permission_denied')
  t.same(denied.map(({ message, user_id: user }) => [message, user ?? null]).sort(), [
    ['Permission denied: /agents/ws', null],
    ['Permission denied: /agents/ws', 'temp_agent-temp'],
    ['Permission denied: /dashboard/ws', null],
    ['Permission denied: /dashboard/ws', 'agent-one']
  ])
})

t.test('security log: a newer instance of an agent is logged with both addresses', async t => {
  const { registry, lines } = await logged(t)
  const token = await registry.agent('agent-one')
  await registry.post('/agents/register', { token, body: registration('agent-one') })
  const found = (await entries(registry, ['agents'])).filter(({ message }) => message.startsWith('A newer'))
  t.match(found, [{
    level: 'INFO',
    message: 'A newer instance of an agent has registered',
    agentId: 'agent-one',
    address: '127.0.0.1',
    previousAddress: '127.0.0.1'
  }])
  t.equal(countOf(lines, found[0].message), 1)
})

t.test('security log: five hundred requests keep the existing entries', async t => {
  const { registry, lines } = await logged(t, { dashboard: { logCapacity: 50, slowRequestMs: 60_000 } })
  await registry.register('agent-one')
  for (let round = 0; round < 50; round++) await Promise.all(Array.from({ length: 10 }, () => registry.get('/public/stats')))
  await until(() => lines.filter(line => line.includes('request completed')).length >= 500)
  const found = await entries(registry, ['agents', 'auth', 'server'])
  t.ok(found.some(({ message }) => message === "Agent 'agent-one' registered"))
  t.ok(found.some(({ message }) => message === 'Temporary token succeeded: agent-one'))
  t.same(found.filter(({ source }) => source === 'server'), [])
})

t.test('security log: internal errors are logged by route, with the error that pino gets', async t => {
  const { registry } = await logged(t, {
    dashboard: { slowRequestMs: 60_000 },
    publicView: () => { throw new Error('The view is broken') }
  })
  await registry.register('agent-one')
  await registry.get('/public/agent/nobody')
  const found = await entries(registry, ['server'])
  t.match(found.find(({ message }) =>
    message.startsWith('Failed')), { level: 'ERR', method: 'POST', endpoint: '/agents/register', status_code: 503 })
  t.notOk(found.some(({ endpoint }) => endpoint === '/public/agent/:id'))
  t.match(found.find(({ error }) => error === 'The view is broken'), { level: 'ERR', message: 'registry' })
})

t.test('security log: slow requests are logged, and sockets do not count as such', async t => {
  const { registry } = await logged(t, {
    dashboard: { slowRequestMs: 100 },
    onRegister: () => new Promise<void>(resolve =>
      setTimeout(resolve, 300))
  })
  const socket = await registry.watcher()
  await registry.register('agent-one')
  socket.close()
  await socket.closed
  const slow = (await entries(registry, ['server'])).filter(({ message }) => message.startsWith('Slow'))
  t.match(slow.find(({ endpoint }) => endpoint === '/agents/register'), { level: 'WARN', method: 'POST', status_code: 200 })
  t.notOk(slow.some(({ endpoint }) => endpoint.endsWith('/ws')))
})

interface Sink { text: string, stream: Writable }

function sink (): Sink {
  const log: Sink = { text: '', stream: new Writable({ write (chunk, _encoding, done) { log.text += chunk; done() } }) }
  return log
}

/** Every kind of valid and invalid authentication. @returns the secrets used */
async function walk (registry: Harness): Promise<string[]> {
  const { body: { access_token: token } } = await registry.register()
  const ticket = (await registry.post('/ws-tickets', { token, body: {} })).body.ticket
  const temp = await registry.tempToken('agent-two')
  const admin = await registry.admin()
  const tokens = [token, admin.token, temp, expired(token), unsigned(token), forge(
    token, {}, 'another secret of thirty-two characters'
  ), 'plain-secret-of-nobody']
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
  await registry.post(
    '/auth/login', { body: { username: 'admin', password: 'wrong-password-here' }, headers: { 'x-client-fingerprint': 'x' } }
  )
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
  'a request log of the host': {
    serializers: {
      req: ({ url, headers }: { url: string, headers: Record<string, string> }) => ({ address: url, agent: headers['user-agent'] })
    }
  },
  'a request log as text': { serializers: { req: ({ method, url }: { method: string, url: string }) => `${method} ${url}` } },
  'a request log that shows nothing': { serializers: { req: () => null } }
}

for (const [name, logger] of Object.entries(loggers)) {
  t.test(`redaction: in a host with ${name} no secret is logged, valid or not`, async t => {
    const log = sink()
    const registry = await serve(t, log, logger)
    const secrets = await walk(registry)
    await until(() => log.text.includes('incoming request'))
    for (const secret of secrets) t.notOk(log.text.includes(secret), `${secret.slice(0, 12)}…`)
    if (!name.endsWith('nothing')) t.match(log.text, '/agents/ws', 'the path is')
    await registry.get('/hosts-own?page=2')
    t.equal(log.text.includes('/hosts-own?page=2'), !name.endsWith('nothing'), 'routes of the host are logged as before')
  })
}

t.test('redaction: a logger other than pino gets requests without their query', async t => {
  const lines: string[] = []
  const write = (serializers: Record<string, (value: unknown) => unknown>) => (details: Record<string, unknown>, message?: string) => {
    const shown = Object.fromEntries(Object.entries(details).map(([key, value]) => [key, serializers[key]?.(value)]))
    lines.push(`${message} ${JSON.stringify(shown)}`)
  }
  const loggerOf = (serializers = {}): object => {
    const log = write(serializers)
    return {
      level: 'info',
      info: log,
      error: log,
      debug: log,
      fatal: log,
      warn: log,
      trace: log,
      silent: log,
      child: (_bindings: object, options?: { serializers?: object }) => loggerOf(options?.serializers)
    }
  }
  const app = fastify({ loggerInstance: loggerOf() } as FastifyServerOptions)
  await app.register(agentRegistry, withDefaults())
  await app.listen({ port: 0, host: '127.0.0.1' })
  t.teardown(() => app.close())
  await new Harness(app as unknown as Harness['app']).get('/public/info?token=secret')
  t.match(lines.find(line => line.startsWith('incoming request')), /"url":"\/public\/info"/)
  t.notOk(lines.join().includes('token=secret'))
})

t.test('redaction: in a host scope with its own serializers no query is logged', async t => {
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
