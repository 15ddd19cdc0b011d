import fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import agentRegistry, {
  type AgentRegistryOptions, MemoryAgentStore, MemoryKeyValueStore, type Principal
} from '../../../src/index.js'
import { isProblem } from '../../../src/errors.js'
import type { RegistrationBody } from '../../../src/protocol/schemas/agent.js'
import {
  answerChecker, build, fingerprint, type Harness, keys, problemOf, registration, secret, until, withDefaults
} from '../../support/harness.js'
const answers = answerChecker()
const agent = (id = 'agent-one', more: object = {}) => registration(id, more) as RegistrationBody

/** The type of the problem with which `run` rejects. */
async function refusal (run: Promise<unknown>): Promise<string> {
  const error = await run.then(() => undefined, (thrown: unknown) => thrown)
  if (!isProblem(error)) throw new Error(`Expected a problem, not ${error}`)
  return error.type
}

t.test('host API', async t => {
  const http = await build(t, {}, answers)
  const { agentRegistry: registry } = http.app

  await t.test('host API: it registers agents whose tokens work over HTTP', async t => {
    const seen: string[] = []
    registry.events.on('change', ({ type, agent_id: id, previous }) => { seen.push(`${type} ${id} ${previous}`) })
    const before = registry.revision
    const answer = await registry.register(agent())
    t.match(answer, { created: true, agent_id: 'agent-one', revision: registry.revision })
    t.not(registry.revision, before)
    t.equal((await http.post('/agents/agent-one/heartbeat', { token: answer.access_token })).status, 200)
    t.match(await registry.register(agent()), { created: false })
    t.same(seen, ['registered agent-one null', 'alive agent-one starting', 'registered agent-one alive'])
  })

  await t.test('host API: it reads, lists and counts agents', async t => {
    await registry.register(agent('agent-two', { agent_type: 'security', capabilities: ['scan', 'read'] }))
    t.match(registry.get('agent-two'), { agent_id: 'agent-two', status: 'alive', state: 'starting' })
    t.equal(registry.get('agent-zzz'), undefined)
    const listed = (...args: Parameters<typeof registry.list>) => registry.list(...args).map(({ agent_id: id }) => id)
    t.same(listed(), ['agent-one', 'agent-two'])
    t.same(listed({ agent_type: 'SECURITY', capabilities: ['read', 'scan'], status: 'alive' }), ['agent-two'])
    t.same(registry.stats(), { total_agents: 2, alive_agents: 2, dead_agents: 0, agent_types: { testing: 1, security: 1 } })
  })

  await t.test('host API: it renews, drains and unregisters agents', async t => {
    t.match(await registry.heartbeat('agent-two'), { state: 'alive' })
    t.match(await registry.setStatus('agent-two', 'draining'), { state: 'draining' })
    const { access_token: token } = await registry.register(agent('agent-two'))
    await registry.unregister('agent-two')
    t.equal(problemOf(t, await http.get('/agents', { token })), 'token-invalid')
    await registry.releaseHeld()
  })

  await t.test('host API: it throws the problems of the REST API', async t => {
    t.equal(await refusal(registry.unregister('agent-zzz')), 'agent-not-found')
    t.equal(await refusal(registry.heartbeat('agent-zzz')), 'agent-not-found')
    t.equal(await refusal(registry.setStatus('agent-zzz', 'alive')), 'agent-not-found')
    t.equal(await refusal(registry.register(agent('x'))), 'validation-failed')
  })
})

t.test('replacement: it is logged with both addresses', async t => {
  const lines: string[] = []
  const stream = { write (line: string) { lines.push(line) } }
  const registry = await build(t, {}, { ...answers, server: { logger: { level: 'info', stream }, trustProxy: true } })
  const from = (address: string) => ({ 'x-forwarded-for': address })
  const {
    body: { access_token: token }
  } = await registry.post('/agents/register', { token: await registry.tempToken(), body: agent(), headers: from('192.0.2.1') })
  await registry.post('/agents/register', { token, body: agent(), headers: from('192.0.2.2') })
  await until(() => lines.some(line => line.includes('A newer instance')))
  t.match(JSON.parse(lines.find(line =>
    line.includes('A newer instance'))!), { agentId: 'agent-one', address: '192.0.2.2', previousAddress: '192.0.2.1' })
  t.notMatch(lines.join(''), token)
  t.notMatch(lines.join(''), keys.plain)
})

/** Opens, and then fails like a disk. */
class BrokenStore extends MemoryAgentStore {
  override async register (): Promise<never> { throw new Error('the disk at /var/secret is gone') }
  override async expire (): Promise<never> { throw new Error('the disk at /var/secret is gone') }
}

t.test('storage failure: it is logged, and no response discloses it', async t => {
  const lines: string[] = []
  const app = fastify({ logger: { level: 'error', stream: { write (line: string) { lines.push(line) } } } })
  t.teardown(() => app.close())
  const failing = new BrokenStore({ leaseMs: 200, retentionMs: 1000 })
  await app.register(agentRegistry, withDefaults({ storage: { agents: failing }, lease: { durationMs: 200 } }))
  await app.ready()
  await until(() => lines.some(line => line.includes('"registry"')))
  const temp = await app.inject({
    method: 'POST', url: '/auth/agent/request_temp_token', payload: { agent_id: 'agent-one', agent_type: 'testing', agent_key: keys.plain }
  })
  const answer = await app.inject(
    { method: 'POST', url: '/agents/register', headers: { authorization: `Bearer ${temp.json().temp_token}` }, payload: agent() }
  )
  t.equal(answer.statusCode, 500)
  t.match(answer.json(), { type: /internal-error$/, detail: 'An unexpected error occurred. Try again later.' })
  t.notMatch(answer.body, 'secret')
  t.ok(lines.some(line => line.includes('the disk at')))
})

/** An app whose options are not merged with those of tests. */
async function rawApp (t: Test, options: AgentRegistryOptions) {
  const app = fastify()
  t.teardown(() => app.close())
  await app.register(agentRegistry, options)
  await app.ready()
  return app
}

async function temporaryToken (app: FastifyInstance): Promise<string> {
  const payload = { agent_id: 'agent-one', agent_type: 'testing', agent_key: keys.plain }
  return (await app.inject({ method: 'POST', url: '/auth/agent/request_temp_token', payload })).json().temp_token
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` })

async function accepts (app: FastifyInstance, token: string): Promise<boolean> {
  return (await app.inject({ method: 'GET', url: '/tokens/validate', headers: bearer(token) })).json().valid
}

t.test('secret: without one a secret is generated and kept in storage; all configured secrets verify', async t => {
  const agentKeys = [keys.plain]
  const [one, two] = [await rawApp(t, { agentKeys }), await rawApp(t, { agentKeys })]
  t.same([
    await accepts(one, await temporaryToken(one)), await accepts(two, await temporaryToken(one))
  ], [true, false], 'a store in memory is not shared')
  const kept = { agentKeys, storage: { agents: new MemoryAgentStore({ leaseMs: 1000, retentionMs: 1000 }), kv: new MemoryKeyValueStore() } }
  const before = await rawApp(t, kept)
  const token = await temporaryToken(before)
  await before.close()
  t.equal(await accepts(await rawApp(t, kept), token), true)
  const [x, y] = ['x'.repeat(32), 'y'.repeat(32)]
  const [onlyX, onlyY, both] = [await rawApp(
    t, { agentKeys, jwt: { secret: x } }
  ), await rawApp(t, { agentKeys, jwt: { secret: y } }), await rawApp(t, { agentKeys, jwt: { secret: [x, y] } })]
  t.same([await accepts(both, await temporaryToken(onlyX)), await accepts(both, await temporaryToken(onlyY))], [true, true])
  t.same([
    await accepts(onlyX, await temporaryToken(both)), await accepts(onlyY, await temporaryToken(both))
  ], [true, false], 'the first secret signs')
})

t.test('temporary tokens: one whose key is no longer configured registers nothing', async t => {
  const [before, after] = [
    await rawApp(t, { agentKeys: [keys.plain], jwt: { secret } }), await rawApp(t, { agentKeys: [keys.other], jwt: { secret } })
  ]
  const headers = bearer(await temporaryToken(before))
  const registered = await after.inject({ method: 'POST', url: '/agents/register', headers, payload: agent() })
  t.match(registered.json(), { type: /token-invalid$/ })
  const unregistered = await after.inject({ method: 'DELETE', url: '/agents/agent-one', headers })
  t.match(unregistered.json(), { type: /token-invalid$/ })
})

function hostPrincipal (more: Partial<Principal>): Principal {
  return {
    type: 'agent',
    role: 'agent',
    subject: 'host',
    agentId: 'agent-one',
    incarnation: null,
    tokenId: 'host-1',
    sessionId: null,
    expiresAt: null,
    scopes: [],
    keyDigest: null,
    ...more
  }
}

const principals: Record<string, unknown> = {
  agent: hostPrincipal({}),
  admin: hostPrincipal({ type: 'admin', role: 'admin', tokenId: 'host-2' }),
  expired: hostPrincipal({ expiresAt: 1 }),
  odd: { role: 'admin' },
  none: null
}

t.test('host tokens', async t => {
  const registry = await build(t, {
    limits: { hookTimeoutMs: 100 },
    authenticate (token) {
      if (token === 'throws') throw new Error('no')
      if (token === 'hangs') return new Promise(() => {})
      return principals[token] as Principal
    }
  }, answers)

  await t.test('host tokens: they authenticate agents and admins of the host, and cannot be refreshed', async t => {
    t.equal((await registry.post('/agents/register', { token: 'agent', body: agent() })).status, 200)
    t.equal((await registry.post('/agents/agent-one/heartbeat', { token: 'agent' })).status, 200)
    t.equal((await registry.get('/agents/stats', { token: 'admin' })).status, 200)
    t.equal(problemOf(t, await registry.get('/auth/session_status', { token: 'admin' })), 'session-invalid')
    t.equal(problemOf(t, await registry.post('/tokens/refresh', { token: 'agent' })), 'token-invalid')
    t.equal((await registry.delete('/agents/agent-one', { token: 'admin' })).status, 200)
    t.equal((await registry.post('/auth/logout', { token: 'admin' })).status, 200)
    t.equal(problemOf(t, await registry.get('/agents/stats', { token: 'admin' })), 'token-invalid')
  })

  await t.test('host tokens: they are refused when the hook refuses, returns nothing or invalid data', async t => {
    for (const token of ['none', 'odd', 'expired', 'throws', 'unknown']) {
      t.equal(problemOf(t, await registry.get('/agents', { token })), 'token-invalid', token)
    }
    const late = await registry.get('/agents', { token: 'hangs' })
    t.equal(late.status, 503)
    t.equal(problemOf(t, late), 'hook-failed')
  })
})

function hooked (onRegister: () => void | Promise<void>) {
  return { onRegister, limits: { hookTimeoutMs: 100 } }
}

const hooks: Array<[name: string, hook: () => void | Promise<void>, status: number, type: string]> = [
  ['throws', () => { throw new Error('Not here') }, 403, 'insufficient-permissions'],
  ['rejects', async () => { throw new Error('Not here') }, 403, 'insufficient-permissions'],
  ['throws a value that is not an error', () => { throw Object.create(null) }, 403, 'insufficient-permissions'],
  ['hangs', () => new Promise(() => {}), 503, 'hook-failed']
]
for (const [name, hook, status, type] of hooks) {
  t.test(`onRegister: a hook that ${name} refuses the registration, and spends no token`, async t => {
    let isOpen = false
    const registry: Harness = await build(t, hooked(() => isOpen ? undefined : hook()), answers)
    const token = await registry.tempToken()
    const answer = await registry.post('/agents/register', { token, body: agent() })
    t.equal(answer.status, status)
    t.equal(problemOf(t, answer), type)
    isOpen = true
    t.equal((await registry.post('/agents/register', { token, body: agent() })).status, 200)
    t.equal((await registry.get('/agents/stats', { ...await registry.admin(fingerprint) })).body.registry_statistics.total_agents, 1)
  })
}

t.test('responses: they match their schemas', async t => { t.same(answers.findings, []) })
