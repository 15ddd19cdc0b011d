import t from 'tap'
import { buildApp } from '../../../src/server/app.js'
import { build, fingerprint, Harness, problemOf, silentServer, withDefaults, type Answer } from '../../support/harness.js'

const print = { 'x-client-fingerprint': fingerprint }

t.test('problems', async t => {
  const registry = await build(t, { limits: { maxBodyBytes: 1000 } })
  const admin = await registry.admin()

  await t.test('bear the id of their request, which is never the same', async t => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => registry.get('/agents')))
    for (const answer of answers) t.equal(problemOf(t, answer), 'authentication-failed')
    t.equal(new Set(answers.map(({ body }) => body.request_id)).size, 20)
  })

  await t.test('name every field, escape and filter nothing, and have numbers as numbers', async t => {
    const answer = await registry.post('/agents/register', { ...admin, body: { agent_id: 'x' } })
    t.equal(answer.body.errors.length, 11)
    for (const { path, message } of answer.body.errors) t.match([path, message], [/^\/\w+$/, /\w/])
    t.type(answer.body.status, 'number')
    const words = "script object document alert 'details' <style>"
    const missing = await registry.get(`/public/agent/${encodeURIComponent(words)}`)
    t.equal(missing.body.detail, `Agent ${words} not found`)
  })

  await t.test('are what a missing record, another method and a wrong token are told with', async t => {
    for (const [answer, type] of [
      [await registry.get('/agents/absent-one', admin), 'agent-not-found'], [await registry.call('PUT', '/agents/absent-one'), 'method-not-allowed'],
      [await registry.get('/tokens/validate'), 'authentication-failed'], [await registry.get('/tokens/validate', { token: 'x' }), 'token-invalid']
    ] as Array<[Answer, string]>) t.equal(problemOf(t, answer), type)
  })

  await t.test('are what a large body is told with, also in chunks', async t => {
    const chunks = new ReadableStream({
      start (controller) {
        controller.enqueue(Buffer.alloc(2000, ' '))
        controller.close()
      }
    })
    const init: RequestInit & { duplex: 'half' } = { method: 'POST', body: chunks, duplex: 'half', headers: { 'content-type': 'application/json' } }
    const response = await fetch(`${registry.base}/auth/login`, init)
    t.equal(response.status, 413)
    t.match(await response.json(), { type: /request-too-large$/, max_size: 1000 })
  })

  await t.test('are for the whole of the stand-alone server, which caches its keys and says whether it is ready', async t => {
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
  ['GET', '/tokens/validate', undefined, 401, { valid: false }], ['POST', '/tokens/validate?token=x', undefined, 200, { valid: false }], ['POST', '/tokens/validate', undefined, 422, {}],
  ['POST', '/tokens/refresh', undefined, 401, { detail: String }], ['POST', '/auth/login', { agent_id: 'agent-one', agent_type: 'testing' }, 401, { detail: /Direct agent login not allowed/ }],
  ['POST', '/auth/agent/request_temp_token', { agent_id: 'agent-one', agent_type: 'testing' }, 400, {}],
  ['POST', '/auth/agent/request_temp_token', { agent_id: 'agent-one', agent_type: 'testing', agent_key: 'an-invalid-key' }, 401, {}],
  ['GET', '/public/discover?limit=150', undefined, 422, {}], ['GET', '/public/agent/unknown-one', undefined, 404, {}],
  ['GET', '/public/discover', undefined, 200, [{ agent_id: 'agent-one', name: String, agent_type: 'testing', capabilities: Array, endpoint: String, status: 'alive' }]],
  ['GET', '/public/info', undefined, 200, { service: String, version: '2.1.2', limits: { discover_max_limit: Number, search_max_limit: Number } }],
  ['GET', '/public/stats', undefined, 200, { agent_types: 1 }], ['GET', '/.well-known/jwks.json', undefined, 200, { keys: [] }]
]

t.test('what the tests of existing servers ask for is answered as they expect', async t => {
  const registry = await build(t)
  t.equal((await registry.register()).status, 200)
  for (const [method, path, body, status, match] of expected) {
    const answer = await registry.call(method, path, { body, headers: print })
    t.equal(answer.status, status, `${method} ${path}`)
    t.match(answer.body, match)
  }
})
