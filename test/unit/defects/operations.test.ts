import { createHash } from 'node:crypto'
import t from 'tap'
import { buildApp } from '../../../src/server/app.js'
import { optionsFromEnv } from '../../../src/server/env.js'
import { build, fingerprint, Harness, keys, password, registration, secret, type Json } from '../../support/harness.js'
import { countingStore, timed } from './helper.js'

// What requests cost, what tokens and logs give away, and what a server needs to be told before it works.

const claimsOf = (token: string): Json => JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString())

t.test('the store', async t => {
  const { store, callsOf } = countingStore()
  const registry = await build(t, { store })
  const admin = await registry.admin()
  const token = await registry.agent()
  const watcher = await registry.watcher()
  const socket = await registry.agentSocket(admin.token)
  for (let index = 0; index < 50; index++) await registry.join(`agent-${index}`)

  await t.test('is asked nothing by whoever reads, however many agents there are', async t => {
    const reads = [
      '/public/discover?limit=1', '/public/discover', '/public/stats', '/public/agent/agent-one', '/health', '/agents', '/agents?limit=5', '/agents/agent-one', '/agents/agent-one/metrics',
      '/agents/search?query=agent', '/agents/stats', '/dashboard/config', '/metrics'
    ]
    for (const path of reads) {
      const call = path.startsWith('/agents/agent-one') ? { token } : admin
      t.same(await callsOf(async () => { t.equal((await registry.get(path, call)).status, 200, path) }), [], path)
    }
    t.same(await callsOf(async () => {
      watcher.send({ type: 'get_discovery', page_size: 1 })
      await watcher.next('discovery_data')
      socket.send({ type: 'watch', snapshot: true })
      await socket.next('agents_snapshot')
    }), [])
  })

  await t.test('is asked once for each sign of life and each report, whoever watches', async t => {
    const once: Array<[path: string, body?: object]> = [['/agents/agent-one/heartbeat'], ['/agents/agent-one/metrics', { success_rate: 1 }], ['/agents/report-metrics/agent-one?response_time=1']]
    for (const [path, body] of once) {
      const calls = await callsOf(async () => { t.equal((await registry.post(path, { token, body })).status, 200, path) })
      t.equal(calls.length, 1, `${path}: ${calls.join()}`)
    }
  })

  await t.test('is asked for the fifty-first agent what it was asked for the first', async t => {
    const fresh = countingStore()
    const empty = await build(t, { store: fresh.store })
    const first = await fresh.callsOf(() => empty.register('first-one'))
    t.ok(first.length > 0)
    const later = await callsOf(() => registry.register('later-one'))
    t.same(later, first)
  })
})

t.test('no answer is held back on purpose: tokens, logins and wrong keys', async t => {
  const registry = await build(t, { attempts: { burst: 100 } })
  const admin = await registry.admin()
  const token = await registry.agent()
  const calls: Array<[name: string, call: () => Promise<unknown>]> = [
    ['validate', () => registry.get('/tokens/validate', { token })],
    ['refresh', () => registry.post('/tokens/refresh', { token })],
    ['mint', () => registry.post('/tokens/mint', { ...admin, body: { user_id: 'somebody', agent_id: 'some-body' } })],
    ['a wrong key', () => registry.tempToken('agent-one', 'no-such-key-at-all')],
    ['register', () => registry.post('/agents/register', { ...admin, body: registration('agent-two') })]
  ]
  for (const [name, call] of calls) {
    const ms = await timed(async () => { for (let round = 0; round < 5; round++) await call() })
    t.ok(ms < 5000, `five of ${name} took ${ms} ms, and would take more than 7,500 with a fixed delay`)
  }
})

t.test('a token tells nothing of the key it was given for, not even a digest that could be guessed at', async t => {
  const lines: string[] = []
  const registry = await build(t, {}, { server: { logger: { level: 'trace', stream: { write (line: string) { lines.push(line) } } } } })
  await registry.tempToken('agent-one', `${keys.plain}-and-more`)
  const tokens = [await registry.tempToken(), (await registry.register()).body.access_token]
  const digests = (['hex', 'base64', 'base64url'] as const).flatMap(form => ['sha256', 'sha512', 'md5'].map(name => createHash(name).update(keys.plain).digest(form)))
  for (const text of [...tokens.map(token => JSON.stringify(claimsOf(token))), lines.join('')]) {
    t.notOk(text.includes(keys.plain.slice(0, 8)), 'nor its beginning')
    for (const digest of digests) t.notOk(text.includes(digest))
  }
})

t.test('an answer whose headers are longer than those that requests may have is an answer', async t => {
  const registry = await build(t, { limits: { maxHeaderBytes: 1024 } })
  const token = await registry.join()
  const capabilities = Array.from({ length: 20 }, (_, index) => `${index} ${'x'.repeat(90)}`.trim())
  for (const id of ['agent-a', 'agent-b']) await registry.join(id, { capabilities })
  const query = capabilities.map(name => `capabilities=${encodeURIComponent(name)}`).join('&')
  const { status, headers, body } = await registry.get(`/agents?limit=1&${query}`, { token })
  t.equal(status, 200)
  t.equal(body.length, 1)
  t.ok(headers.get('link')!.length > 1024)
})

t.test('headers that a host sets for browsers of other origins reach the documents that everybody may read', async t => {
  const registry = await build(t, {}, {
    before: app => app.addHook('onRequest', async function allowOrigins (request, reply) {
      reply.header('access-control-allow-origin', '*')
      if (request.method === 'OPTIONS') return reply.code(204).send()
    })
  })
  for (const path of ['/.well-known/jwks.json', '/.well-known/arcp-configuration', '/public/stats', '/agents']) {
    t.equal((await registry.get(path)).headers.get('access-control-allow-origin'), '*', path)
    t.equal((await registry.call('OPTIONS', path, { headers: { origin: 'https://other.example', 'access-control-request-method': 'GET' } })).status, 204, path)
  }
})

t.test('a server in production needs two secrets and no list of hosts or origins', async t => {
  const app = await buildApp(optionsFromEnv({ NODE_ENV: 'production', STORE: 'memory', JWT_SECRET: secret, ADMIN_PASSWORD: password, AGENT_KEYS: keys.plain, LOG_LEVEL: 'silent' }))
  t.teardown(() => app.close())
  await app.listen({ port: 0, host: '127.0.0.1' })
  const registry = new Harness(app)
  for (const host of ['registry.example', 'another.example:8443', '192.0.2.7']) {
    t.equal((await registry.get('/health', { headers: { host, origin: `https://${host}` } })).status, 200, host)
    t.match(await registry.socket('/public/ws', [], { headers: { host, origin: `https://${host}` } }).next(), { type: 'welcome' }, host)
  }
  t.equal((await registry.register()).status, 200)
  t.equal((await registry.get('/auth/session_status', await registry.admin(fingerprint))).status, 200)
})

t.test('no name and password come with a server that was given none', async t => {
  const registry = await build(t, { admin: { password: undefined } })
  for (const [username, word] of [['ARCP', 'ARCP'], ['admin', 'admin'], ['admin', '']] as const) {
    const { status } = await registry.post('/auth/login', { headers: { 'x-client-fingerprint': fingerprint }, body: { username, password: word } })
    t.ok(status === 401 || status === 422, `${status}`)
  }
})
