import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { type AddressInfo, connect } from 'node:net'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { buildApp, serializeRequest } from '../../../src/server/app.js'
import { describeSetting, type Environment, optionsFromEnv, ServerSettingsSchema, settingsOf } from '../../../src/server/env.js'
import { OptionsSchema, resolveOptions } from '../../../src/options.js'
import { Harness, type Json, keys, password, problemOf, registration, secret } from '../../support/harness.js'

const environment = {
  STORE: 'memory', AGENT_KEYS: keys.plain, ADMIN_PASSWORD: password, JWT_SECRET: secret, LOG_LEVEL: 'silent', WEBSOCKET_DRAIN: '0.2'
}

/** The stand-alone server with this environment, listening. */
async function serve (t: Test, more: Environment = {}): Promise<Harness> {
  const app = await buildApp(optionsFromEnv({ ...environment, ...more }))
  t.teardown(() => app.close())
  await app.listen({ port: 0, host: '127.0.0.1' })
  return new Harness(app, more.ARCP_PREFIX)
}

/** The response of the server to raw bytes. */
async function raw (registry: Harness, bytes: string): Promise<{ head: string, body: string }> {
  const socket = connect((registry.app.server.address() as AddressInfo).port, '127.0.0.1')
  socket.end(bytes)
  const [head = '', body = ''] = (await text(socket)).split('\r\n\r\n')
  return { head, body }
}

/** Lines written to the standard output during `run`. */
async function logged (run: () => Promise<unknown>): Promise<string> {
  const lines: string[] = []
  const original = process.stdout.write
  process.stdout.write = function capture (chunk: unknown) {
    lines.push(String(chunk))
    return true
  } as typeof original
  try {
    await run()
  } finally {
    process.stdout.write = original
  }
  return lines.join('')
}

t.test('server: every route is served, with security headers for browsers', async t => {
  const registry = await serve(t)
  for (const path of ['/', '/health', '/docs/', '/openapi.json', '/public/stats', '/.well-known/jwks.json', '/problems/not-found']) {
    const { status, headers } = await registry.get(path)
    t.equal(status, 200, path)
    t.equal(headers.get('x-content-type-options'), 'nosniff')
    t.equal(headers.get('x-frame-options'), 'DENY')
    t.match(headers.get('content-security-policy'), /default-src 'self'.*frame-ancestors 'none'/)
    t.notMatch(headers.get('content-security-policy'), /upgrade-insecure-requests|script-src[^;]*unsafe-inline/)
    t.equal(headers.get('strict-transport-security'), null, 'plain HTTP sends no HSTS header')
    t.ok(headers.get('x-request-id'))
  }
})

t.test('server: every error is a problem document', async t => {
  const registry = await serve(t)
  const errors: Array<[method: string, path: string, status: number, type: string]> = [
    ['GET', '/no/such/path', 404, 'not-found'],
    ['POST', '/', 405, 'method-not-allowed'],
    ['PUT', '/health', 405, 'method-not-allowed'],
    ['GET', '/agents', 401, 'authentication-failed'],
    ['GET', '/%E0%A4%A', 400, 'request-error'],
    ['GET', `/agents/${'a'.repeat(300)}`, 400, 'request-error'],
    ['GET', '/public/discover?limit=none', 422, 'validation-failed']
  ]
  for (const [method, path, status, type] of errors) {
    const answer = await registry.call(method, path)
    t.equal(answer.status, status, path.slice(0, 40))
    t.equal(problemOf(t, answer), type, path.slice(0, 40))
    t.match(answer.body.type, /^\/problems\//)
  }
})

t.test('server: the problem of an unknown path repeats it without its query', async t => {
  const registry = await serve(t)
  const { body, headers } = await registry.get('/%3Cimg%20src=x%20onerror=alert(1)%3E?token=secret-token')
  t.match(headers.get('content-type'), /^application\/problem\+json/)
  t.equal(body.instance, '/%3Cimg%20src=x%20onerror=alert(1)%3E')
})

t.test('server: an invalid URL is not repeated', async t => {
  const registry = await serve(t)
  const answer = await registry.get('/%E0%A4%A?token=secret-token')
  t.notMatch(answer.text, /secret-token/)
})

t.test('server: input that is not HTTP gets a problem document and a closed connection', async t => {
  const registry = await serve(t)
  const table: Array<[name: string, bytes: string, status: string]> = [
    ['not HTTP', 'hello\r\n\r\n', '400 Bad Request'],
    ['two lengths', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n', '400 Bad Request'],
    ['a length and chunks', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n', '400 Bad Request'],
    ['a header over every limit', `GET / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`, '431 Request Header Fields Too Large']
  ]
  for (const [name, bytes, status] of table) {
    const { head, body } = await raw(registry, bytes)
    t.ok(head.startsWith(`HTTP/1.1 ${status}\r\nContent-Type: application/problem+json\r\n`), name)
    t.match(head, /Connection: close/)
    t.match(JSON.parse(body), {
      type: 'about:blank', status: Number(status.slice(0, 3)), title: status.slice(4), detail: 'The request is not valid HTTP'
    })
  }
})

t.test('server: an unfinished header, in one piece or byte by byte, ends its connection and delays no other', async t => {
  const registry = await serve(t, { HEADERS_TIMEOUT: '0.5', REQUEST_TIMEOUT: '0.5' })
  const head = 'GET /public/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'
  const [stuck, slow, body] = [0, 0, 0].map(() => connect((registry.app.server.address() as AddressInfo).port, '127.0.0.1'))
  stuck!.write(head)
  body!.write('POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{')
  let sent = 0
  const drip = setInterval(() => { if (slow!.writable) slow!.write(head[sent++]!) }, 20)
  t.equal((await registry.get('/public/stats')).status, 200)
  for (const socket of [stuck, slow, body]) t.match(await text(socket!), /^HTTP\/1.1 408 Request Timeout\r\n/)
  clearInterval(drip)
  t.ok(sent < head.length, 'before it was complete')
})

t.test('server: a connection that breaks during its request has no effect', async t => {
  const registry = await serve(t)
  const socket = connect((registry.app.server.address() as AddressInfo).port, '127.0.0.1')
  const failed = once(registry.app.server, 'clientError')
  await once(registry.app.server, 'connection')
  socket.resetAndDestroy()
  const [{ code }, { destroyed }] = await failed
  t.same([code, destroyed], ['ECONNRESET', true])
  t.equal((await registry.get('/health/live')).status, 200)
})

t.test('server: an unfinished request is answered with 408', async t => {
  const registry = await serve(t)
  const { server } = registry.app
  const answer = text(connect((server.address() as AddressInfo).port, '127.0.0.1'))
  const [socket] = await once(server, 'connection')
  // The response of Node after its own timeout, which it checks twice a minute.
  server.emit('clientError', Object.assign(new Error('Request timeout'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' }), socket)
  t.match(await answer, /^HTTP\/1\.1 408 Request Timeout\r\n/)
})

t.test('logs: they contain no secret and no query', async t => {
  const secrets = ['secret-token-1', 'secret-ticket-2', 'secret-key-3456', 'secret-password-4', 'header-secret-5']
  const log = await logged(async () => {
    const registry = await serve(t, { LOG_LEVEL: 'trace' })
    await registry.get(`/public/stats?token=${secrets[0]}`, { token: secrets[4]! })
    await registry.get(`/nowhere?ticket=${secrets[1]}`)
    await registry.get(`/%E0%A4%A?key=${secrets[2]}`)
    await registry.post('/auth/login', { body: { username: 'admin', password: secrets[3] }, headers: { 'x-client-fingerprint': 'f' } })
    await registry.post('/auth/agent/request_temp_token', { body: { agent_id: 'a', agent_type: 'testing', agent_key: secrets[2] } })
    const socket = registry.socket(`/agents/ws?token=${secrets[0]}`, ['agent-registry.json', `bearer.${secrets[0]}`])
    await socket.closed
    await registry.agent()
    registry.app.log.info({
      token: secrets[0], headers: { authorization: secrets[4] }, login: { password: secrets[3], ticket: secrets[1], key: secrets[2] }
    }, 'said by hand')
    await registry.app.close()
  })
  t.match(log, /"path":"\/public\/stats"/)
  t.match(log, /"address":"127\.0\.0\.1"/)
  t.match(log, /said by hand/)
  for (const value of [...secrets, password, secret, keys.plain]) t.notOk(log.includes(value), value)
  t.notMatch(log, /"path":"[^"]*\?/)
})

t.test('logs: warnings reach the dashboards too, without secrets', async t => {
  const registry = await serve(t, { LOG_LEVEL: 'info' })
  const { token } = await registry.admin()
  let frame = ''
  const log = await logged(async () => {
    await registry.get('/public/stats?token=secret-token-1', { token: 'header-secret-5' })
    registry.app.log.warn({ token: 'secret-token-1', part: 'engine' }, 'said by hand with ?ticket=secret-ticket-2')
    const dashboard = registry.socket('/dashboard/ws')
    await dashboard.opened
    dashboard.send({ type: 'auth', token })
    frame = JSON.stringify(await dashboard.next('logs'))
    dashboard.close()
  })
  t.match(log, /said by hand/, 'the standard output has it')
  const entries = JSON.parse(frame).data.logs
  t.match(entries.find(({ level }: Json) =>
    level === 'WARN'), { message: 'said by hand with ?ticket=[redacted]', source: 'server', part: 'engine' })
  t.notOk(entries.some(({ source, level }: Json) => source === 'server' && level === 'INFO'), 'successful requests do not')
  for (const value of ['secret-token-1', 'secret-ticket-2', 'header-secret-5', password, token]) t.notOk(frame.includes(value), value)
})

t.test('metrics: unserved paths are one series, with and without a prefix', async t => {
  for (const prefix of ['', '/registry']) {
    const registry = await serve(t, { ARCP_PREFIX: prefix, METRICS_SCRAPE_TOKEN: 'a-token-for-prometheus' })
    const outside = new Harness(registry.app)
    for (const path of ['/nothing', '/nothing-else?x=1', `${prefix}/nowhere`]) await outside.get(path)
    for (const method of ['PROPFIND', 'REPORT']) await outside.call(method, '/nothing')
    await registry.get('/health')
    const { text } = await registry.get('/metrics/scrape', { token: 'a-token-for-prometheus' })
    const series = text.split('\n').filter(line => /^arcp_requests_total/.test(line))
    t.same(series, [
      'arcp_requests_total{method="GET",endpoint="unmatched",status_code="404"} 3',
      'arcp_requests_total{method="OTHER",endpoint="unmatched",status_code="404"} 2',
      `arcp_requests_total{method="GET",endpoint="${prefix}/health",status_code="200"} 1`
    ])
  }
})

t.test('logs: a request is logged with method, path and address', async t => {
  t.same(serializeRequest({ method: 'GET', url: '/public/ws?token=x?y', ip: '::1' }), { method: 'GET', path: '/public/ws', address: '::1' })
})

t.test('request ids: they are generated here, and those of clients are ignored', async t => {
  const registry = await serve(t)
  const { headers } = await registry.get('/health', { headers: { 'request-id': 'mine', 'x-request-id': 'mine' } })
  t.match(headers.get('x-request-id'), /^[0-9a-f]{8}-[0-9a-f-]{27}$/)
})

t.test('addresses: forwarded addresses are used only from a trusted proxy', async t => {
  for (const [trust, status] of [['false', 200], ['loopback', 403], ['true', 403]] as const) {
    const registry = await serve(t, { TRUST_PROXY: trust, BLOCKED_IPS: '192.0.2.0/24' })
    t.equal((await registry.get('/health', { headers: { 'x-forwarded-for': '192.0.2.9' } })).status, status, trust)
  }
})

t.test('prefix: it moves the problem types, and 404 outside of it is a problem too', async t => {
  const registry = await serve(t, { ARCP_PREFIX: '/registry' })
  t.match((await registry.get('/agents')).body.type, /^\/registry\/problems\//)
  const outside = await new Harness(registry.app).get('/elsewhere')
  t.equal(problemOf(t, outside), 'not-found')
  t.equal((await new Harness(registry.app).get(outside.body.type)).status, 200)
})

t.test('problems: the base of their types is configurable', async t => {
  const registry = await serve(t, { ARCP_PROBLEM_BASE: 'https://example.org/problems/' })
  for (const path of ['/agents', '/elsewhere', '/%E0%A4%A']) {
    t.match((await registry.get(path)).body.type, /^https:\/\/example\.org\/problems\//)
  }
})

t.test('server: trailing slashes are ignored', async t => {
  const registry = await serve(t)
  for (const path of ['/health/', '/public/stats/', '/docs']) t.equal((await registry.get(path)).status, 200, path)
  t.equal((await registry.post('/agents/register/', { token: await registry.tempToken(), body: registration() })).status, 200)
})

t.test('documents: OpenAPI lists every served route', async t => {
  const registry = await serve(t)
  const { body } = await registry.get('/openapi.json')
  t.equal(body.openapi, '3.1.0')
  for (const path of [
    '/', '/health', '/auth/login', '/tokens/refresh', '/agents/{id}', '/public/discover', '/ws-tickets', '/problems/{type}'
  ]) {
    t.ok(path in body.paths, path)
  }
  t.notOk(Object.values<object>(body.paths).some(operations => 'put' in operations), 'refused methods are not documented')
})

t.test('options: wrong ones stop the start', async t => {
  await t.rejects(
    buildApp({ options: { lease: { durationMs: 1 } }, server: optionsFromEnv({}).server }), { code: 'AGENT_REGISTRY_INVALID_OPTIONS' }
  )
})

function failure (env: Environment): string {
  try {
    optionsFromEnv(env)
  } catch (error) {
    return (error as Error).message
  }
  return 'no error'
}

/** The message up to the description of valid values. */
function finding (env: Environment): string {
  return failure(env).replace('Invalid options: \n  ', '').replace(/\. Expected: .*$/s, '')
}

const longSecret = 's'.repeat(32)

t.test('environment: without variables the defaults apply, with the root, the docs and /v1 on', async t => {
  const { options, server } = optionsFromEnv({})
  t.same(server, { host: '127.0.0.1', port: 8001, logLevel: 'info', trustProxy: false, headersTimeoutMs: 10_000, requestTimeoutMs: 60_000 })
  t.same(options, { routes: { root: true, docs: true, v1: true }, storage: 'level' })
  t.same(optionsFromEnv({ NOBODY_KNOWS_THIS: 'x' }), { options, server }, 'environment: unknown variables are ignored')
})

t.test('environment: a Redis URL selects Redis unless another store is named', async t => {
  const given = {
    REDIS_URL: 'rediss://:hidden@redis.test:6380/2', REDIS_HOST: 'redis.test', REDIS_SENTINELS: 'a:1,[::1]:2', REDIS_CLUSTER: 'a:1'
  }
  for (const [name, value] of Object.entries(given)) {
    t.equal(optionsFromEnv({ [name]: value }).options.storage, 'redis', name)
    t.equal(optionsFromEnv({ [name]: value, STORE: 'Memory' }).options.storage, 'memory')
  }
  t.equal(optionsFromEnv({ REDIS_URL: ' ' }).options.storage, 'level')
  t.match(
    optionsFromEnv(given).options.redis, { url: given.REDIS_URL, host: 'redis.test', sentinels: ['a:1', '[::1]:2'], cluster: ['a:1'] }
  )
  t.throws(() => optionsFromEnv({ REDIS_URL: 'redis.test hidden' }), { message: /REDIS_URL: the value has the wrong format/ })
  t.throws(() => optionsFromEnv({ REDIS_CLUSTER: 'redis.test', STORE: 'disk' }), {
    message: /STORE: 'disk' is not one of memory, level, redis.*\n +REDIS_CLUSTER: 'redis.test' entry 1 has the wrong format/
  })
})

t.test('environment: default objects are not shared', async t => {
  optionsFromEnv({ ARCP_ROUTES_DOCS: 'false' })
  t.equal(optionsFromEnv({}).options.routes?.docs, true)
})

t.test('environment: every result is a valid set of plugin options', async t => {
  const { options } = optionsFromEnv({ AGENT_HEARTBEAT_TIMEOUT: '30', JWT_SECRET: longSecret, ALLOWED_AGENT_TYPES: '*' })
  const resolved = resolveOptions(options)
  t.equal(resolved.lease.durationMs, 30_000)
  t.equal(resolved.jwt.secret, longSecret)
  t.same(resolved.allowedAgentTypes, ['*'])
})

t.test('environment: numbers are converted to the unit of the option', async t => {
  t.equal(optionsFromEnv({ AGENT_HEARTBEAT_TIMEOUT: '0.2' }).options.lease?.durationMs, 200, 'fractions of a second')
  t.equal(optionsFromEnv({ JWT_EXPIRE_MINUTES: '0.001' }).options.jwt?.expiresInMs, 60, 'without rounding errors')
  t.equal(optionsFromEnv({ SESSION_TIMEOUT: ' 30 ' }).options.admin?.sessionTimeoutMs, 1_800_000)
  t.equal(optionsFromEnv({ RATE_LIMIT_RPM: '100' }).options.attempts?.windowMs, 900_000)
  t.equal(optionsFromEnv({ MAX_SESSIONS: '7' }).options.admin?.maxSessions, 7)
})

t.test('environment: booleans have eight words, in any case', async t => {
  for (const word of ['true', '1', 'yes', 'on', 'TRUE', ' On ']) {
    t.equal(optionsFromEnv({ IP_DEFAULT_DENY: word }).options.addresses?.defaultDeny, true, word)
  }
  for (const word of ['false', '0', 'no', 'off', 'No']) {
    t.equal(optionsFromEnv({ IP_DEFAULT_DENY: word }).options.addresses?.defaultDeny, false, word)
  }
})

t.test('environment: lists are comma-separated or JSON', async t => {
  t.same(optionsFromEnv({ BLOCKED_IPS: '10.0.0.1, 10.1.0.0/16,,' }).options.addresses?.blocked, ['10.0.0.1', '10.1.0.0/16'])
  t.same(optionsFromEnv({ BLOCKED_IPS: ' ["10.0.0.1"]' }).options.addresses?.blocked, ['10.0.0.1'])
  t.same(optionsFromEnv({ AGENT_KEYS: 'first-agent-key,second-agent-key' }).options.agentKeys, ['first-agent-key', 'second-agent-key'])
  const keys = [{ key: 'an,exclusive,key', exclusive: true }, { key: 'without-exclusive' }, 'a-plain-key']
  t.same(optionsFromEnv({ AGENT_KEYS: JSON.stringify(keys) }).options.agentKeys, keys)
})

t.test('environment: a secret may contain commas, and only JSON makes it a list', async t => {
  const withCommas = `${longSecret},${longSecret}`
  t.equal(optionsFromEnv({ JWT_SECRET: withCommas }).options.jwt?.secret, withCommas)
  t.same(optionsFromEnv({ JWT_SECRET: JSON.stringify([longSecret, withCommas]) }).options.jwt?.secret, [longSecret, withCommas])
})

t.test('environment: a password is used as given, including leading and trailing blanks', async t => {
  t.equal(optionsFromEnv({ ADMIN_PASSWORD: ' pass word ' }).options.admin?.password, ' pass word ')
})

t.test('environment: names of levels and algorithms are case-insensitive, and accept the spelling of ARCP', async t => {
  t.equal(optionsFromEnv({ LOG_LEVEL: 'DEBUG' }).server.logLevel, 'debug')
  t.equal(optionsFromEnv({ LOG_LEVEL: 'WARNING' }).server.logLevel, 'warn')
  t.equal(optionsFromEnv({ LOG_LEVEL: 'critical' }).server.logLevel, 'fatal')
  t.equal(optionsFromEnv({ JWT_ALGORITHM: 'hs512' }).options.jwt?.algorithm, 'HS512')
})

t.test('environment: a proxy is trusted by keyword or by address', async t => {
  t.equal(optionsFromEnv({ TRUST_PROXY: 'yes' }).server.trustProxy, true)
  t.equal(optionsFromEnv({ TRUST_PROXY: '0' }).server.trustProxy, false)
  t.same(optionsFromEnv({ TRUST_PROXY: 'loopback, 10.0.0.0/8, ::1' }).server.trustProxy, ['loopback', '10.0.0.0/8', '::1'])
})

t.test('environment: of several variables the first non-blank one applies', async t => {
  t.equal(optionsFromEnv({ ARCP_PORT: '1', PORT: '2' }).server.port, 1)
  t.equal(optionsFromEnv({ ARCP_PORT: ' ', PORT: '2' }).server.port, 2)
  t.equal(optionsFromEnv({ ARCP_PORT: '', PORT: '' }).server.port, 8001)
  t.equal(optionsFromEnv({ PORT: '0' }).server.port, 0, 'environment: port 0 selects a free port')
  const { options } = optionsFromEnv({ WEBSOCKET_INTERVAL: '9', AGENT_WS_INTERVAL: '3' })
  t.equal(options.publicWs?.intervalMs, 9_000)
  t.equal(options.agentsWs?.intervalMs, 3_000)
})

t.test('environment: errors of numbers', async t => {
  t.equal(finding({ PORT: 'http' }), "PORT: 'http' is not a number")
  t.equal(finding({ PORT: '0x50' }), "PORT: '0x50' is not a number")
  t.equal(finding({ PORT: '70000' }), "PORT: '70000' is too large, the maximum is 65535")
  t.equal(finding({ PORT: '80.5' }), "PORT: '80.5' is not a whole multiple of 1")
  t.equal(finding({ ARCP_PORT: '-1', PORT: '2' }), "ARCP_PORT: '-1' is too small, the minimum is 0")
  t.equal(finding(
    { AGENT_HEARTBEAT_TIMEOUT: '0.1' }
  ), "AGENT_HEARTBEAT_TIMEOUT: '0.1' is too small, the minimum is 0.2", 'in the unit of the variable')
  t.equal(finding({ AGENT_HEARTBEAT_TIMEOUT: '1.0001' }), "AGENT_HEARTBEAT_TIMEOUT: '1.0001' is not a whole multiple of 0.001")
})

t.test('environment: errors of enumerated words', async t => {
  t.equal(finding({ IP_DEFAULT_DENY: 'maybe' }), "IP_DEFAULT_DENY: 'maybe' is not one of true, 1, yes, on, false, 0, no, off")
  t.equal(finding({ JWT_ALGORITHM: 'none' }), "JWT_ALGORITHM: 'none' is not one of HS256, HS384, HS512")
  t.equal(finding({ LOG_LEVEL: 'loud' }), "LOG_LEVEL: 'loud' is not one of fatal, error, warn, info, debug, trace, silent")
})

t.test('environment: errors of texts', async t => {
  t.equal(finding({ PUBLIC_WS_PATH: 'ws' }), "PUBLIC_WS_PATH: 'ws' has the wrong format")
  t.equal(finding({ ADMIN_USERNAME: 'a'.repeat(256) }), `ADMIN_USERNAME: '${'a'.repeat(256)}' is longer than 255 characters`)
  t.equal(finding({ ARCP_HOST: 'a b' }), "ARCP_HOST: 'a b' has the wrong format")
})

t.test('environment: errors of lists', async t => {
  t.equal(finding({ BLOCKED_IPS: '[1' }), "BLOCKED_IPS: '[1' begins with [ but is not a JSON list")
  t.equal(finding({ BLOCKED_IPS: '[1]' }), "BLOCKED_IPS: '[1]' entry 1 has the wrong type")
  t.equal(finding({ TRUST_PROXY: 'loopback,nonsense' }), "TRUST_PROXY: 'loopback,nonsense' entry 2 has the wrong format")
  t.equal(finding({ TRUST_PROXY: ',' }), "TRUST_PROXY: ',' is an empty list")
})

t.test('environment: errors of secrets do not show them', async t => {
  t.equal(finding({ JWT_SECRET: 'too-short-to-be-safe' }), 'JWT_SECRET: the value is shorter than 32 characters')
  t.equal(finding({ JWT_SECRET: `["${longSecret}", "short"]` }), 'JWT_SECRET: the value entry 2 is shorter than 32 characters')
  t.equal(finding({ AGENT_KEYS: 'long-enough-key,short' }), 'AGENT_KEYS: the value entry 2 is shorter than 10 characters')
  t.equal(finding(
    { AGENT_KEYS: '[{"key":"long-enough-key","maxAgents":0}]' }
  ), 'AGENT_KEYS: the value entry 1 maxAgents: Expected integer to be greater or equal to 1')
  t.equal(finding({ AGENT_KEYS: '[{"name":"hidden"}]' }), 'AGENT_KEYS: the value entry 1 key: Expected required property')
  t.equal(finding({ AGENT_KEYS: '[null]' }), 'AGENT_KEYS: the value entry 1 value: Expected object')
  t.equal(finding({ ADMIN_PASSWORD: 'x'.repeat(1025) }), 'ADMIN_PASSWORD: the value is longer than 1024 characters')
})

t.test('environment: one error lists each invalid variable once, with the expected values', async t => {
  const lines = failure({ PORT: 'http', LOG_LEVEL: 'loud', WEBSOCKET_INTERVAL: 'often' }).split('\n')
  t.equal(lines.length, 4)
  t.equal(lines[0], 'Invalid options: ')
  t.match(lines[1], /^ {2}WEBSOCKET_INTERVAL: 'often' is not a number\. Expected: .+ \(s\)$/)
  t.equal(lines[2], "  PORT: 'http' is not a number. Expected: Port to listen on; 0 selects a free port")
  t.match(lines[3], /^ {2}LOG_LEVEL: .+ Expected: Minimum severity/)
})

t.test('environment: production requires a secret and a password', async t => {
  const lines = failure({ NODE_ENV: 'production', ADMIN_PASSWORD: ' ' }).split('\n')
  t.equal(lines.length, 3)
  t.match(lines[1], /^ {2}JWT_SECRET: is missing, and NODE_ENV is production\. Expected: Secret of at least 32/)
  t.match(lines[2], /^ {2}ADMIN_PASSWORD: is missing/)
  t.equal(failure({ NODE_ENV: 'production', JWT_SECRET: longSecret, ADMIN_PASSWORD: 'p' }), 'no error')
  t.equal(failure({ NODE_ENV: 'test' }), 'no error')
})

t.test('environment: descriptions use the unit of the variable', async t => {
  const settings = [...settingsOf(ServerSettingsSchema), ...settingsOf(OptionsSchema)]
  for (const setting of settings) {
    const text = describeSetting(setting)
    t.not(text, '', setting.names.join())
    if (setting.factor !== 1) t.notMatch(text, /\(ms\)/, setting.names.join())
  }
  const described = (name: string) => describeSetting(settings.find(({ names }) => names.includes(name))!)
  t.match(described('JWT_EXPIRE_MINUTES'), /\(min\)$/)
  t.match(described('RATE_LIMIT_RPM'), /\(× 9000 ms\)$/)
})

t.test('environment: .env.example has exactly the variables of the schemas, with valid defaults', async t => {
  const text = readFileSync('.env.example', 'utf8')
  const entries = [...text.matchAll(/^#([A-Z][A-Z0-9_]*)=(.*)$/gm)].map(([, name = '', value = '']) => [name, value] as const)
  const names = [...settingsOf(ServerSettingsSchema), ...settingsOf(OptionsSchema)].flatMap(setting => setting.names)
  t.same(entries.map(([name]) => name).sort(), [...new Set(names)].sort())
  const shown = optionsFromEnv(Object.fromEntries(entries))
  t.same(shown.server, optionsFromEnv({}).server)
  t.same(resolveOptions(shown.options), resolveOptions(optionsFromEnv({}).options))
})
