import { once } from 'node:events'
import { connect, type AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { buildApp, serializeRequest } from '../../../src/server/app.js'
import { optionsFromEnv, type Environment } from '../../../src/server/env.js'
import { Harness, keys, password, problemOf, registration, secret, type Json } from '../../support/harness.js'

const environment = { STORE: 'memory', AGENT_KEYS: keys.plain, ADMIN_PASSWORD: password, JWT_SECRET: secret, LOG_LEVEL: 'silent', WEBSOCKET_DRAIN: '0.2' }

/** The stand-alone server as the environment says, listening. */
async function serve (t: Test, more: Environment = {}): Promise<Harness> {
  const app = await buildApp(optionsFromEnv({ ...environment, ...more }))
  t.teardown(() => app.close())
  await app.listen({ port: 0, host: '127.0.0.1' })
  return new Harness(app, more.ARCP_PREFIX)
}

/** What the server answers to bytes that need not be HTTP. */
async function raw (registry: Harness, bytes: string): Promise<{ head: string, body: string }> {
  const socket = connect((registry.app.server.address() as AddressInfo).port, '127.0.0.1')
  socket.end(bytes)
  const [head = '', body = ''] = (await text(socket)).split('\r\n\r\n')
  return { head, body }
}

/** Lines that the process writes to its standard output while `run` runs. */
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

t.test('everything is served, with headers that protect a browser', async t => {
  const registry = await serve(t)
  for (const path of ['/', '/health', '/docs/', '/openapi.json', '/public/stats', '/.well-known/jwks.json', '/problems/not-found']) {
    const { status, headers } = await registry.get(path)
    t.equal(status, 200, path)
    t.equal(headers.get('x-content-type-options'), 'nosniff')
    t.equal(headers.get('x-frame-options'), 'DENY')
    t.match(headers.get('content-security-policy'), /default-src 'self'.*frame-ancestors 'none'/)
    t.notMatch(headers.get('content-security-policy'), /upgrade-insecure-requests|script-src[^;]*unsafe-inline/)
    t.equal(headers.get('strict-transport-security'), null, 'plain HTTP promises no HTTPS')
    t.ok(headers.get('x-request-id'))
  }
})

t.test('every error is a problem document', async t => {
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

t.test('an unknown path is escaped in nothing and repeated without its query', async t => {
  const registry = await serve(t)
  const { body, headers } = await registry.get('/%3Cimg%20src=x%20onerror=alert(1)%3E?token=secret-token')
  t.match(headers.get('content-type'), /^application\/problem\+json/)
  t.equal(body.instance, '/%3Cimg%20src=x%20onerror=alert(1)%3E')
})

t.test('an invalid URL is not repeated', async t => {
  const registry = await serve(t)
  const answer = await registry.get('/%E0%A4%A?token=secret-token')
  t.notMatch(answer.text, /secret-token/)
})

t.test('what is no HTTP is answered by a problem document and a closed connection', async t => {
  const registry = await serve(t)
  const table: Array<[name: string, bytes: string, status: string]> = [
    ['not HTTP', 'hello\r\n\r\n', '400 Bad Request'],
    ['two lengths', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n', '400 Bad Request'],
    ['a length and chunks', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n', '400 Bad Request'],
    ['a header over all bounds', `GET / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`, '431 Request Header Fields Too Large']
  ]
  for (const [name, bytes, status] of table) {
    const { head, body } = await raw(registry, bytes)
    t.ok(head.startsWith(`HTTP/1.1 ${status}\r\nContent-Type: application/problem+json\r\n`), name)
    t.match(head, /Connection: close/)
    t.match(JSON.parse(body), { type: 'about:blank', status: Number(status.slice(0, 3)), title: status.slice(4), detail: 'The request is not valid HTTP' })
  }
})

t.test('a head that never ends, in one piece or byte by byte, ends the connection and holds up nobody', async t => {
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
  t.ok(sent < head.length, 'before it was whole')
})

t.test('a connection that breaks before its request is whole harms nobody', async t => {
  const registry = await serve(t)
  const socket = connect((registry.app.server.address() as AddressInfo).port, '127.0.0.1')
  const failed = once(registry.app.server, 'clientError')
  await once(registry.app.server, 'connection')
  socket.resetAndDestroy()
  const [{ code }, { destroyed }] = await failed
  t.same([code, destroyed], ['ECONNRESET', true])
  t.equal((await registry.get('/health/live')).status, 200)
})

t.test('a request that never ends is answered 408', async t => {
  const registry = await serve(t)
  const { server } = registry.app
  const answer = text(connect((server.address() as AddressInfo).port, '127.0.0.1'))
  const [socket] = await once(server, 'connection')
  // What Node says after its own timeout, which is looked at twice a minute.
  server.emit('clientError', Object.assign(new Error('Request timeout'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' }), socket)
  t.match(await answer, /^HTTP\/1\.1 408 Request Timeout\r\n/)
})

t.test('logs hold no secret and no query', async t => {
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
    registry.app.log.info({ token: secrets[0], headers: { authorization: secrets[4] }, login: { password: secrets[3], ticket: secrets[1], key: secrets[2] } }, 'said by hand')
    await registry.app.close()
  })
  t.match(log, /"path":"\/public\/stats"/)
  t.match(log, /"address":"127\.0\.0\.1"/)
  t.match(log, /said by hand/)
  for (const value of [...secrets, password, secret, keys.plain]) t.notOk(log.includes(value), value)
  t.notMatch(log, /"path":"[^"]*\?/)
})

t.test('warnings reach the dashboards too, and no secret does', async t => {
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
  t.match(entries.find(({ level }: Json) => level === 'WARN'), { message: 'said by hand with ?ticket=[redacted]', source: 'server', part: 'engine' })
  t.notOk(entries.some(({ source, level }: Json) => source === 'server' && level === 'INFO'), 'requests that went well do not')
  for (const value of ['secret-token-1', 'secret-ticket-2', 'header-secret-5', password, token]) t.notOk(frame.includes(value), value)
})

t.test('what nothing serves is one series, whatever its path, with and without a prefix', async t => {
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

t.test('a request is logged as its method, path and address', async t => {
  t.same(serializeRequest({ method: 'GET', url: '/public/ws?token=x?y', ip: '::1' }), { method: 'GET', path: '/public/ws', address: '::1' })
})

t.test('ids of requests are made here, whatever the client sends', async t => {
  const registry = await serve(t)
  const { headers } = await registry.get('/health', { headers: { 'request-id': 'mine', 'x-request-id': 'mine' } })
  t.match(headers.get('x-request-id'), /^[0-9a-f]{8}-[0-9a-f-]{27}$/)
})

t.test('addresses come from a proxy only where it is trusted', async t => {
  for (const [trust, status] of [['false', 200], ['loopback', 403], ['true', 403]] as const) {
    const registry = await serve(t, { TRUST_PROXY: trust, BLOCKED_IPS: '192.0.2.0/24' })
    t.equal((await registry.get('/health', { headers: { 'x-forwarded-for': '192.0.2.9' } })).status, status, trust)
  }
})

t.test('a prefix moves the problem types, and 404 outside of it is a problem too', async t => {
  const registry = await serve(t, { ARCP_PREFIX: '/registry' })
  t.match((await registry.get('/agents')).body.type, /^\/registry\/problems\//)
  const outside = await new Harness(registry.app).get('/elsewhere')
  t.equal(problemOf(t, outside), 'not-found')
  t.equal((await new Harness(registry.app).get(outside.body.type)).status, 200)
})

t.test('a base of its own for the problem types', async t => {
  const registry = await serve(t, { ARCP_PROBLEM_BASE: 'https://example.org/problems/' })
  for (const path of ['/agents', '/elsewhere', '/%E0%A4%A']) t.match((await registry.get(path)).body.type, /^https:\/\/example\.org\/problems\//)
})

t.test('slashes at the end do not matter', async t => {
  const registry = await serve(t)
  for (const path of ['/health/', '/public/stats/', '/docs']) t.equal((await registry.get(path)).status, 200, path)
  t.equal((await registry.post('/agents/register/', { token: await registry.tempToken(), body: registration() })).status, 200)
})

t.test('the documents of the API name every route that is served', async t => {
  const registry = await serve(t)
  const { body } = await registry.get('/openapi.json')
  t.equal(body.openapi, '3.1.0')
  for (const path of ['/', '/health', '/auth/login', '/tokens/refresh', '/agents/{id}', '/public/discover', '/ws-tickets', '/problems/{type}']) {
    t.ok(path in body.paths, path)
  }
  t.notOk(Object.values<object>(body.paths).some(operations => 'put' in operations), 'methods that are refused are not documented')
})

t.test('wrong options end the start', async t => {
  await t.rejects(buildApp({ options: { lease: { durationMs: 1 } }, server: optionsFromEnv({}).server }), { code: 'AGENT_REGISTRY_INVALID_OPTIONS' })
})
