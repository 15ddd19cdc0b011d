import { Value } from '@sinclair/typebox/value'
import t, { type Test } from 'tap'
import { AgentInfo } from '../../../src/protocol/schemas/agent.js'
import type { Claims } from '../../../src/protocol/schemas/claims.js'
import { buildApp } from '../../../src/server/app.js'
import {
  type Answer, build, fingerprint, Harness, type Json, keys, password, problemOf, registration, secret, silentServer, sleep, until,
  withDefaults
} from '../../support/harness.js'
import { hmacSigner } from '../auth/helper.js'

const print = { 'x-client-fingerprint': fingerprint }
const claimsOf = (token: string): Json => JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString())
const idsOf = ({ body }: Answer): string[] => body.map((agent: Json) => agent.agent_id)
const markup = '<img src=x onerror=alert(1)>'

/** A registry whose log is captured. */
async function logged (test: Test, options = {}) {
  const lines: string[] = []
  const server = { logger: { level: 'trace', stream: { write (line: string) { lines.push(line) } } }, trustProxy: true }
  return { registry: await build(test, options, { server }), lines }
}

t.test('access', async t => {
  const registry = await build(t)
  const admin = await registry.admin()

  await t.test('access: the path of an unauthorised request and the name of an agent are data, never markup', async t => {
    const answer = await registry.get(`/agents/${encodeURIComponent(markup)}`)
    t.equal(problemOf(t, answer), 'authentication-failed')
    t.notMatch(answer.text, '<img')
    await registry.register('marked-one', { name: '<b>&"\'</b>', metadata: { a: markup } })
    const shown = await registry.get('/public/agent/marked-one')
    t.match(shown.headers.get('content-type'), /^application\/json/)
    t.match(shown.body, { name: '<b>&"\'</b>', metadata: { a: markup } })
  })

  await t.test('access: an invalid token cannot end the sessions of an admin', async t => {
    await registry.post('/auth/set_pin', { ...admin, body: { pin: '1357' } })
    const forged = hmacSigner('not the secret of this registry at all').sign(claimsOf(admin.token))
    for (const path of ['/agents', '/tokens/validate', '/auth/session_status']) {
      t.equal((await registry.get(path, { token: forged, headers: print })).status, 401)
    }
    await registry.post(`/tokens/validate?token=${forged}`)
    t.equal((await registry.socket(`/agents/ws?token=${forged}`).closed).code, 4001)
    t.match((await registry.get('/auth/session_status', admin)).body, { valid: true, pin_set: true })
    await registry.post('/auth/logout', admin)
    Object.assign(admin, await registry.admin())
  })

  await t.test('access: a registration key does not let a client act as an existing agent', async t => {
    await registry.register('victim-one')
    for (const key of [keys.plain, keys.other]) {
      const token = await registry.tempToken('victim-one', key)
      t.equal((await registry.post('/agents/victim-one/heartbeat', { token })).status, 403)
      t.equal((await registry.post('/agents/victim-one/status', { token, body: { status: 'draining' } })).status, 403)
      t.equal((await registry.patch('/agents/victim-one', { token, body: { name: 'Taken' } })).status, 403)
      t.equal((await registry.get('/agents', { token })).status, 403)
    }
    t.equal((await registry.delete('/agents/victim-one', { token: await registry.tempToken('victim-one', keys.other) })).status, 403)
    t.equal((await registry.get('/public/agent/victim-one')).body.name, 'Agent One')
  })

  await t.test('access: a temporary token cannot be refreshed into an access token', async t => {
    const answer = await registry.post('/tokens/refresh', { token: await registry.tempToken('fresh-one') })
    t.equal(problemOf(t, answer), 'insufficient-permissions')
  })

  await t.test('access: a temporary token registers no other id, and only one registration', async t => {
    const token = await registry.tempToken('temp-one')
    t.equal((await registry.post('/agents/register', { token, body: registration('temp-two') })).status, 403)
    t.equal((await registry.post('/agents/register', { token, body: registration('temp-one') })).status, 200)
    t.equal((await registry.post(
      '/agents/register', { token, body: registration('temp-one', { endpoint: 'http://127.0.0.1:10', capabilities: ['all'] }) }
    )).status, 401)
  })

  await t.test('access: a stored response is served only after authentication', async t => {
    const call = { headers: { 'idempotency-key': 'one' }, body: registration('idem-one') }
    t.equal((await registry.post('/agents/register', { ...call, token: await registry.tempToken('idem-one') })).status, 200)
    t.equal(problemOf(t, await registry.post('/agents/register', call)), 'authentication-failed')
  })

  await t.test('access: tokens live as long as stated', async t => {
    const [temp, own] = [claimsOf(await registry.tempToken('life-one')), claimsOf(await registry.agent('life-two'))]
    t.equal(temp.exp - temp.iat, 900)
    t.equal(own.exp - own.iat, 3600 * 60)
  })

  await t.test('access: removed agents do not return by themselves', async t => {
    const token = await registry.agent('gone-one')
    await registry.delete('/agents/gone-one', admin)
    t.equal((await registry.get('/agents', { token })).status, 401)
    t.equal((await registry.post('/tokens/refresh', { token })).status, 401)
    t.equal((await registry.post('/agents/register', { token, body: registration('gone-one') })).status, 401)
  })

  await t.test('access: a token expires at its second, and a token without an expiry is invalid', async t => {
    const now = Math.floor(Date.now() / 1000)
    const claims = { ...claimsOf(await registry.agent('end-one')), iat: now - 100 }
    const sign = (more: object) => hmacSigner(secret).sign({ ...claims, ...more } as Claims)
    t.equal((await registry.get('/agents', { token: sign({}) })).status, 200)
    t.equal((await registry.get('/agents', { token: sign({ exp: now - 1 }) })).status, 401)
    t.equal((await registry.get('/agents', { token: sign({ exp: undefined }) })).status, 401)
    t.equal((await registry.get('/agents', { token: sign({ role: undefined }) })).status, 401, 'nor one without a role')
  })

  await t.test('access: headers with a client certificate or a proof of possession are ignored', async t => {
    const headers = { 'x-client-cert': 'cert', dpop: 'x.y.z', authorization: `DPoP ${admin.token}`, ...print }
    t.equal(problemOf(t, await registry.get('/agents/stats', { headers })), 'authentication-failed')
  })

  await t.test('access: the Host header is in no URL that the registry returns', async t => {
    const answer = await registry.get('/.well-known/arcp-configuration', {
      headers: { host: 'evil.example', 'x-forwarded-host': 'evil.example', 'x-forwarded-proto': 'https' }
    })
    t.notMatch(answer.text, 'evil.example')
  })

  await t.test('access: irreversible requests require the PIN of the session', async t => {
    await registry.register('pinned-one')
    await registry.post('/auth/set_pin', { ...admin, body: { pin: '97531' } })
    t.equal(problemOf(t, await registry.delete('/agents/pinned-one', admin)), 'pin-required')
    t.equal(problemOf(
      t, await registry.delete('/agents/pinned-one', { ...admin, headers: { ...print, 'x-session-pin': '97532' } })
    ), 'pin-incorrect')
    t.equal((await registry.delete('/agents/pinned-one', { ...admin, headers: { ...print, 'x-session-pin': '97531' } })).status, 200)
  })

  await t.test('access: a logout ends all tokens of the admin', async t => {
    const { body: { access_token: refreshed } } = await registry.post('/tokens/refresh', { token: admin.token })
    t.equal((await registry.get('/agents/stats', { token: refreshed, headers: print })).status, 200, 'a refreshed token works')
    await registry.post('/auth/logout', admin)
    for (const token of [admin.token, refreshed]) {
      t.equal((await registry.get('/agents', { token, headers: print })).status, 401)
      t.equal((await registry.post(`/tokens/validate?token=${token}`)).body.valid, false)
    }
  })
})

t.test('password guessing', async t => {
  const registry = await build(t, { attempts: { burst: 6, windowMs: 600_000 } }, { server: { trustProxy: true } })
  const login = (address: string, more: Record<string, string> = {}) => registry.post('/auth/login', {
    body: { username: 'admin', password: 'wrong' }, headers: { ...print, 'x-forwarded-for': address, ...more }
  })

  await t.test('password guessing: failed responses and another user agent do not reset the count', async t => {
    const headers = { 'x-forwarded-for': '192.0.2.1' }
    const statuses = []
    for (let n = 0; n < 10; n++) {
      statuses.push((await login('192.0.2.1', { 'user-agent': `agent ${n}`, accept: `text/${n}` })).status)
      await registry.post('/auth/agent/request_temp_token', { headers, body: {} })
      await registry.post('/auth/agent/request_temp_token', { headers, raw: '{' })
      await registry.post(
        '/auth/agent/request_temp_token', { headers, body: { agent_id: 'agent-one', agent_type: 'testing', agent_key: keys.plain } }
      )
    }
    t.same(statuses, [...Array(6).fill(401), ...Array(4).fill(429)])
  })

  await t.test('password guessing: concurrent guesses do not exceed the count', async t => {
    const tried = await Promise.all(Array.from({ length: 200 }, (_, n) => registry.post('/auth/agent/request_temp_token', {
      body: { agent_id: 'agent-one', agent_type: 'testing', agent_key: `guessed-key-${n}` }, headers: { 'x-forwarded-for': '192.0.2.2' }
    })))
    t.equal(tried.filter(({ status }) => status === 401).length, 6)
    t.equal(tried.filter(({ status }) => status === 429).length, 194)
  })

  await t.test('password guessing: other clients behind the same proxy are not locked out', async t => {
    const answer = await registry.post('/auth/agent/request_temp_token', {
      body: { agent_id: 'agent-one', agent_type: 'testing', agent_key: keys.plain }, headers: { 'x-forwarded-for': '192.0.2.3' }
    })
    t.equal(answer.status, 200)
  })
})

t.test('secrets', async t => {
  const long = 'k'.repeat(64)
  const { registry, lines } = await logged(t, { agentKeys: [keys.plain, `${long}a`, long] })
  const admin = await registry.admin()

  await t.test('agent keys: they are compared in full, and appear neither in tokens nor in logs', async t => {
    for (const key of [long, `${long}a`]) t.ok(await registry.tempToken('agent-one', key))
    t.notOk(await registry.tempToken('agent-one', `${long}b`))
    await registry.tempToken('agent-one', 'wrong-key-1234567')
    t.notMatch(JSON.stringify(claimsOf(await registry.tempToken())), keys.plain.slice(0, 8))
  })

  await t.test('secrets: validation errors do not contain them', async t => {
    const answers = [
      await registry.post('/auth/login', { headers: print, body: { username: 7, password: [password] } }),
      await registry.post('/auth/set_pin', { ...admin, body: { pin: [97531] } }),
      await registry.post('/auth/login', { headers: print, raw: `{"password":"${password}"` })
    ]
    for (const { status, text } of answers) {
      t.equal(status, 422)
      t.notMatch(text, password)
      t.notMatch(text, '97531')
    }
  })

  await t.test('secrets: logs do not contain them, also when they are in a query', async t => {
    const token = await registry.agent('agent-two')
    await registry.post(`/tokens/validate?token=${token}`)
    const socket = registry.socket(`/agents/ws?token=${token}`)
    await socket.next('auth_success')
    socket.close()
    await socket.closed
    const log = lines.join('')
    t.match(log, '/tokens/validate')
    for (const hidden of [token, admin.token, token.split('.')[1]!, keys.plain, 'wrong-key', long, password, '97531']) {
      t.notOk(log.includes(hidden))
    }
  })
})

t.test('registering', async t => {
  const many = Array.from({ length: 12 }, (_, n) => `key-number-${n + 100}`)
  const registry = await build(t, { agentKeys: [...many, keys.plain, keys.other], lease: { durationMs: 5000 } })

  await t.test('registration: any number of keys, each for any number of agents, works', async t => {
    for (const [index, key] of many.entries()) {
      for (const n of [1, 2]) t.equal((await registry.register(`many-${index}-${n}`, {}, key)).status, 200)
    }
    t.equal((await registry.get('/public/stats')).body.alive_agents, 24)
  })

  await t.test('registration: ids of 100 characters work, and two ids fail with 422', async t => {
    t.equal((await registry.register('x'.repeat(100))).status, 200)
    t.equal((await registry.get(`/public/agent/${'x'.repeat(100)}`)).status, 200)
    for (const id of ['a', 'ab']) t.equal((await registry.register(id)).status, 422)
  })

  await t.test('registration: ids that a path would hide are refused', async t => {
    for (const id of ['register', 'search', 'stats', 'report-metrics', 'changes', 'events']) {
      t.equal((await registry.register(id)).status, 422)
    }
  })

  await t.test('registration: an agent that crashed can register again at once', async t => {
    const socket = await registry.agentSocket(await registry.agent('crashed-one'))
    socket.terminate()
    await until(() => registry.app.agentRegistry.get('crashed-one')!.state === 'suspect')
    t.match((await registry.register('crashed-one')).body, { created: false })
  })

  await t.test('registration: a repeat keeps the time of the first registration', async t => {
    const token = await registry.agent('kept-one')
    const before = registry.app.agentRegistry.get('kept-one')!
    await sleep(5)
    await registry.post('/agents/register', { token, body: registration('kept-one') })
    t.equal(registry.app.agentRegistry.get('kept-one')!.registered_at, before.registered_at)
  })

  await t.test('registration: the id of a dead agent can be taken, and the former key loses it', async t => {
    const short = await build(t, { lease: { durationMs: 200 } })
    await short.register('dead-one')
    await until(() => short.app.agentRegistry.get('dead-one')!.state === 'dead')
    t.equal((await short.register('dead-one', {}, keys.other)).status, 200)
    t.equal((await short.delete('/agents/dead-one', { token: await short.tempToken('dead-one', keys.plain) })).status, 403)
    t.equal((await short.delete('/agents/dead-one', { token: await short.tempToken('dead-one', keys.other) })).status, 200)
  })

  await t.test('registration: there is no fixed delay', async t => {
    const started = Date.now()
    for (let n = 0; n < 10; n++) await registry.register(`quick-${n}`)
    t.ok(Date.now() - started < 5000, 'ten take less than three of them would with 1.8 s each')
  })
})

t.test('registration: without keys a token request is refused, and the server keeps working', async t => {
  const registry = await build(t, { agentKeys: [] })
  const answer = await registry.post(
    '/auth/agent/request_temp_token', { body: { agent_id: 'agent-one', agent_type: 'testing', agent_key: keys.plain } }
  )
  t.equal(problemOf(t, answer), 'authentication-failed')
})

t.test('registration: disabled compliance validation returns 400, and clients register without it', async t => {
  const registry = await build(t)
  const answer = await registry.post('/auth/agent/validate_compliance', { token: await registry.tempToken(), body: {} })
  t.equal(answer.status, 400)
  t.match(answer.body, { type: /tpr-disabled$/, detail: /not enabled/ })
})

t.test('the registry', async t => {
  const registry = await build(t)

  await t.test('registry: unregistering with open sockets is immediate and notifies them', async t => {
    const watcher = await registry.watcher()
    const token = await registry.agent('leaving-one')
    await watcher.next('agents_update')
    const started = Date.now()
    t.equal((await registry.delete('/agents/leaving-one', { token })).status, 200)
    t.ok(Date.now() - started < 2500)
    let last = await watcher.next('agents_update')
    while (last.data.total_count > 0) last = await watcher.next('agents_update')
    t.equal(last.data.total_count, 0)
    watcher.close()
  })

  await t.test('registry: the response has the hints for models', async t => {
    const token = await registry.agent('hint-one', { ai_context: 'hints' })
    const bodies = [(await registry.get('/agents/hint-one', { token })).body, (await registry.get(
      '/agents', { token }
    )).body[0], (await registry.get('/public/discover')).body[0], (await registry.get('/public/agent/hint-one')).body]
    for (const body of bodies) t.equal(body.ai_context, 'hints')
    await registry.delete('/agents/hint-one', { token })
  })

  await t.test('registry: agents are found by all capabilities and case-insensitive type, on every endpoint', async t => {
    const token = await registry.agent('both-one', { agent_type: 'TESTING', capabilities: ['red', 'blue'] })
    await registry.register('only-one', { capabilities: ['red'] })
    const query = '?capabilities=red&capabilities=blue&agent_type=testing'
    for (const path of ['/agents', '/public/discover']) t.same(idsOf(await registry.get(path + query, { token })), ['both-one'])
    t.same(idsOf(await registry.get('/agents?agent_type=Testing', { token })), ['both-one', 'only-one'])
  })

  await t.test('registry: limits out of range and unknown states are refused', async t => {
    const token = await registry.agent('limits-one')
    for (const path of [
      '/public/discover?limit=0', '/public/discover?limit=-5', '/public/discover?offset=-1', '/agents?limit=0', '/agents?status=alvie'
    ]) {
      t.equal(problemOf(t, await registry.get(path, { token })), 'validation-failed', path)
    }
  })

  await t.test('registry: pages neither overlap nor leave gaps, and carry a total', async t => {
    for (let n = 0; n < 7; n++) await registry.register(`paged-${n}`, { capabilities: ['paged'] })
    const pages = await Promise.all([0, 3, 6].map(offset => registry.get(`/public/discover?capabilities=paged&limit=3&offset=${offset}`)))
    t.same(pages.flatMap(idsOf), Array.from({ length: 7 }, (_, n) => `paged-${n}`))
    const first = await registry.get('/agents?capabilities=paged&limit=3', { token: await registry.agent('pager-one') })
    t.equal(first.headers.get('x-total-count'), '7')
  })

  await t.test('registry: updates have an endpoint, and cannot make a record invalid', async t => {
    const token = await registry.agent('change-one')
    t.equal((await registry.patch('/agents/change-one', { token, body: { version: '2.0.0' } })).body.version, '2.0.0')
    for (const body of [{ name: null }, { version: 'new' }, { metrics: { success_rate: 7 } }, { agent_id: 'other' }]) {
      t.equal((await registry.patch('/agents/change-one', { token, body })).status, 422)
    }
    for (const agent of (await registry.get('/agents', { token })).body) t.same([...Value.Errors(AgentInfo, agent)], [])
  })
})

t.test('times', async t => {
  const zone = process.env.TZ
  t.teardown(() => { if (zone === undefined) delete process.env.TZ; else process.env.TZ = zone })
  for (const TZ of ['America/New_York', 'Asia/Tokyo']) {
    await t.test(`times: they are in UTC, and leases are right, in ${TZ}`, async t => {
      process.env.TZ = TZ
      const registry = await build(t, { lease: { durationMs: 400, retentionMs: 60_000, cleanupIntervalMs: 20 } })
      const events: string[] = []
      registry.app.agentRegistry.events.on('change', ({ type, reason }) => { events.push(`${type} ${reason}`) })
      const token = await registry.agent()
      for (let n = 0; n < 8; n++) {
        await sleep(50)
        t.equal((await registry.post('/agents/agent-one/heartbeat', { token })).status, 200)
      }
      const { last_seen: seen } = (await registry.get('/public/agent/agent-one')).body
      t.match(seen, /Z$/)
      t.ok(Math.abs(Date.now() - Date.parse(seen)) < 10_000)
      await until(() => events.includes('dead lease-expired'))
      t.equal((await registry.get('/agents/agent-one', { token })).body.status, 'dead', 'dead, announced, and not removed')
    })
  }
})

t.test('problems', async t => {
  const registry = await build(t, { limits: { maxBodyBytes: 1000 } })
  const admin = await registry.admin()

  await t.test('problems: each carries the id of its request, and ids are unique', async t => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => registry.get('/agents')))
    for (const answer of answers) t.equal(problemOf(t, answer), 'authentication-failed')
    t.equal(new Set(answers.map(({ body }) => body.request_id)).size, 20)
  })

  await t.test('problems: every invalid field is listed, unescaped, with numbers as numbers', async t => {
    const answer = await registry.post('/agents/register', { ...admin, body: { agent_id: 'x' } })
    t.equal(answer.body.errors.length, 11)
    for (const { path, message } of answer.body.errors) t.match([path, message], [/^\/\w+$/, /\w/])
    t.type(answer.body.status, 'number')
    const words = "script object document alert 'details' <style>"
    const missing = await registry.get(`/public/agent/${encodeURIComponent(words)}`)
    t.equal(missing.body.detail, `Agent ${words} not found`)
  })

  await t.test('problems: a missing record, an unsupported method and a wrong token return one', async t => {
    for (const [answer, type] of [
      [await registry.get('/agents/absent-one', admin), 'agent-not-found'],
      [await registry.call('PUT', '/agents/absent-one'), 'method-not-allowed'],
      [await registry.get('/tokens/validate'), 'authentication-failed'],
      [await registry.get('/tokens/validate', { token: 'x' }), 'token-invalid']
    ] as Array<[Answer, string]>) t.equal(problemOf(t, answer), type)
  })

  await t.test('problems: a body that is too large returns one, also in chunks', async t => {
    const chunks = new ReadableStream({
      start (controller) {
        controller.enqueue(Buffer.alloc(2000, ' '))
        controller.close()
      }
    })
    const init: RequestInit & { duplex: 'half' } = {
      method: 'POST', body: chunks, duplex: 'half', headers: { 'content-type': 'application/json' }
    }
    const response = await fetch(`${registry.base}/auth/login`, init)
    t.equal(response.status, 413)
    t.match(await response.json(), { type: /request-too-large$/, max_size: 1000 })
  })

  await t.test('problems: the stand-alone server uses them everywhere, caches its keys and reports readiness', async t => {
    const app = await buildApp({ options: withDefaults({ routes: { root: true } }), server: silentServer })
    t.teardown(() => app.close())
    await app.listen({ port: 0, host: '127.0.0.1' })
    const server = new Harness(app)
    t.equal(problemOf(t, await server.get('/nothing')), 'not-found')
    t.match((await server.get('/.well-known/jwks.json')).headers.get('cache-control'), 'max-age=3600')
    t.equal((await server.get('/health')).body.status, 'healthy')
    t.equal((await server.get('/health/ready')).status, 200)
  })
})

const expected: Array<[method: string, path: string, body: unknown, status: number, match: object | RegExp]> = [
  ['GET', '/agents', undefined, 401, {}], ['GET', '/agents/agent-one', undefined, 401, {}], ['GET', '/agents/stats', undefined, 401, {}],
  ['POST', '/agents/agent-one/heartbeat', undefined, 401, {}], ['POST', '/agents/register', {}, 401, {}],
  ['GET', '/tokens/validate', undefined, 401, { valid: false }], ['POST', '/tokens/validate?token=x', undefined, 200, { valid: false }],
  ['POST', '/tokens/validate', undefined, 422, {}],
  ['POST', '/tokens/refresh', undefined, 401, { detail: String }],
  ['POST', '/auth/login', { agent_id: 'agent-one', agent_type: 'testing' }, 401, { detail: /Direct agent login not allowed/ }],
  ['POST', '/auth/agent/request_temp_token', { agent_id: 'agent-one', agent_type: 'testing' }, 400, {}],
  ['POST', '/auth/agent/request_temp_token', { agent_id: 'agent-one', agent_type: 'testing', agent_key: 'an-invalid-key' }, 401, {}],
  ['GET', '/public/discover?limit=150', undefined, 422, {}], ['GET', '/public/agent/unknown-one', undefined, 404, {}],
  ['GET', '/public/discover', undefined, 200, [
    { agent_id: 'agent-one', name: String, agent_type: 'testing', capabilities: Array, endpoint: String, status: 'alive' }
  ]],
  ['GET', '/public/info', undefined, 200, {
    service: String,
    version: '2.1.2',
    limits: {
      discover_max_limit: Number, search_max_limit: Number
    }
  }],
  ['GET', '/public/stats', undefined, 200, { agent_types: 1 }], ['GET', '/.well-known/jwks.json', undefined, 200, { keys: [] }]
]

t.test('compatibility: the tests of existing servers get the expected responses', async t => {
  const registry = await build(t)
  t.equal((await registry.register()).status, 200)
  for (const [method, path, body, status, match] of expected) {
    const answer = await registry.call(method, path, { body, headers: print })
    t.equal(answer.status, status, `${method} ${path}`)
    t.match(answer.body, match)
  }
})
