import fastify from 'fastify'
import t from 'tap'
import { createCore } from '../../../src/core.js'
import { isProblem } from '../../../src/errors.js'
import { openFoundation } from '../../../src/foundation.js'
import agentRegistry, { MemoryKeyValueStore, MemoryAgentStore, type AgentRegistryOptions, type Principal } from '../../../src/index.js'
import { resolveOptions } from '../../../src/options.js'
import type { RegistrationBody } from '../../../src/protocol/schemas/agent.js'
import { hmacSigner } from '../auth/helper.js'
import { answerChecker, build, fingerprint, keys, problemOf, registration, secret, until, withDefaults, type Harness } from '../../support/harness.js'

const answers = answerChecker()
const agent = (id = 'agent-one', more: object = {}) => registration(id, more) as RegistrationBody

/** The type of the problem that `run` rejects with. */
async function refusal (run: Promise<unknown>): Promise<string> {
  const error = await run.then(() => undefined, (thrown: unknown) => thrown)
  if (!isProblem(error)) throw new Error(`Expected a problem, not ${error}`)
  return error.type
}

t.test('the host uses the registry without HTTP', async t => {
  const http = await build(t, {}, answers)
  const { agentRegistry: registry } = http.app

  await t.test('and registers agents, whose tokens work over HTTP', async t => {
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

  await t.test('and reads, lists and counts them', async t => {
    await registry.register(agent('agent-two', { agent_type: 'security', capabilities: ['scan', 'read'] }))
    t.match(registry.get('agent-two'), { agent_id: 'agent-two', status: 'alive', state: 'starting' })
    t.equal(registry.get('agent-zzz'), undefined)
    const listed = (...args: Parameters<typeof registry.list>) => registry.list(...args).map(({ agent_id: id }) => id)
    t.same(listed(), ['agent-one', 'agent-two'])
    t.same(listed({ agent_type: 'SECURITY', capabilities: ['read', 'scan'], status: 'alive' }), ['agent-two'])
    t.same(registry.stats(), { total_agents: 2, alive_agents: 2, dead_agents: 0, agent_types: { testing: 1, security: 1 } })
  })

  await t.test('and shows life, drains and unregisters them', async t => {
    t.match(await registry.heartbeat('agent-two'), { state: 'alive' })
    t.match(await registry.setStatus('agent-two', 'draining'), { state: 'draining' })
    const { access_token: token } = await registry.register(agent('agent-two'))
    await registry.unregister('agent-two')
    t.equal(problemOf(t, await http.get('/agents', { token })), 'token-invalid')
    await registry.releaseHeld()
  })

  await t.test('and hears the problems of the REST API', async t => {
    t.equal(await refusal(registry.unregister('agent-zzz')), 'agent-not-found')
    t.equal(await refusal(registry.heartbeat('agent-zzz')), 'agent-not-found')
    t.equal(await refusal(registry.setStatus('agent-zzz', 'alive')), 'agent-not-found')
    t.equal(await refusal(registry.register(agent('x'))), 'validation-failed')
  })
})

t.test('who takes the place of another is logged with both addresses', async t => {
  const lines: string[] = []
  const stream = { write (line: string) { lines.push(line) } }
  const registry = await build(t, {}, { ...answers, server: { logger: { level: 'info', stream }, trustProxy: true } })
  const from = (address: string) => ({ 'x-forwarded-for': address })
  const { body: { access_token: token } } = await registry.post('/agents/register', { token: await registry.tempToken(), body: agent(), headers: from('192.0.2.1') })
  await registry.post('/agents/register', { token, body: agent(), headers: from('192.0.2.2') })
  await until(() => lines.some(line => line.includes('a newer instance')))
  t.match(JSON.parse(lines.find(line => line.includes('a newer instance'))!), { agentId: 'agent-one', address: '192.0.2.2', previousAddress: '192.0.2.1' })
  t.notMatch(lines.join(''), token)
  t.notMatch(lines.join(''), keys.plain)
})

/** Opens, and then fails as a disk does. */
class BrokenStore extends MemoryAgentStore {
  override async register (): Promise<never> { throw new Error('the disk at /var/secret is gone') }
  override async expire (): Promise<never> { throw new Error('the disk at /var/secret is gone') }
}

t.test('a registry whose store fails says so in the log, and in no answer', async t => {
  const lines: string[] = []
  const app = fastify({ logger: { level: 'error', stream: { write (line: string) { lines.push(line) } } } })
  t.teardown(() => app.close())
  const failing = new BrokenStore({ leaseMs: 200, retentionMs: 1000 })
  await app.register(agentRegistry, withDefaults({ store: failing, lease: { durationMs: 200 } }))
  await app.ready()
  await until(() => lines.some(line => line.includes('"registry"')))
  const temp = await app.inject({ method: 'POST', url: '/auth/agent/request_temp_token', payload: { agent_id: 'agent-one', agent_type: 'testing', agent_key: keys.plain } })
  const answer = await app.inject({ method: 'POST', url: '/agents/register', headers: { authorization: `Bearer ${temp.json().temp_token}` }, payload: agent() })
  t.equal(answer.statusCode, 500)
  t.match(answer.json(), { type: /internal-error$/, detail: 'An unexpected error occurred. Try again later.' })
  t.notMatch(answer.body, 'secret')
  t.ok(lines.some(line => line.includes('the disk at')))
})

t.test('without a secret one is made, and kept as long as the storage', async t => {
  const log = { info () {}, warn () {}, error () {} }
  async function secretsOf (options: AgentRegistryOptions) {
    const foundation = await openFoundation(resolveOptions(options), log)
    await foundation.close()
    return foundation.tokenSecrets
  }
  const [one, two] = [await secretsOf({}), await secretsOf({})]
  t.equal(one.length, 1)
  t.ok(one[0]!.length >= 32)
  t.not(one[0], two[0], 'nothing lasts in memory')
  const kept = { store: new MemoryAgentStore({ leaseMs: 1000, retentionMs: 1000 }), state: new MemoryKeyValueStore() }
  t.same(await secretsOf(kept), await secretsOf(kept))
  t.same(await secretsOf({ jwt: { secret: 'x'.repeat(32) } }), ['x'.repeat(32)])
  t.same(await secretsOf({ jwt: { secret: ['x'.repeat(32), 'y'.repeat(32)] } }), ['x'.repeat(32), 'y'.repeat(32)])
})

t.test('a temporary token whose key is configured no more registers nothing', async t => {
  const log = { info () {}, warn () {}, error () {} }
  async function make (agentKeys: string[]) {
    const foundation = await openFoundation(resolveOptions({ agentKeys, jwt: { secret } }), log)
    t.teardown(() => foundation.close())
    return createCore(foundation, hmacSigner(secret))
  }
  const [before, after] = [await make([keys.plain]), await make([keys.other])]
  const { temp_token: token } = await before.authority.requestTempToken({ agentId: 'agent-one', agentType: 'testing', agentKey: keys.plain, address: '192.0.2.1' })
  const principal = await after.authority.authenticate(token)
  t.equal(await refusal(after.enrollment.register(after.registry.parse(agent()), principal)), 'token-invalid')
  t.equal(await refusal(after.enrollment.evictByKey('agent-one', principal)), 'token-invalid')
})

function hostPrincipal (more: Partial<Principal>): Principal {
  return { type: 'agent', role: 'agent', subject: 'host', agentId: 'agent-one', incarnation: null, tokenId: 'host-1', sessionId: null, expiresAt: null, scopes: [], keyDigest: null, ...more }
}

const principals: Record<string, unknown> = {
  agent: hostPrincipal({}),
  admin: hostPrincipal({ type: 'admin', role: 'admin', tokenId: 'host-2' }),
  expired: hostPrincipal({ expiresAt: 1 }),
  odd: { role: 'admin' },
  none: null
}

t.test('tokens of the host', async t => {
  const registry = await build(t, {
    limits: { hookTimeoutMs: 100 },
    authenticate (token) {
      if (token === 'throws') throw new Error('no')
      if (token === 'hangs') return new Promise(() => {})
      return principals[token] as Principal
    }
  }, answers)

  await t.test('stand for agents and admins of the host, and are not ours to refresh', async t => {
    t.equal((await registry.post('/agents/register', { token: 'agent', body: agent() })).status, 200)
    t.equal((await registry.post('/agents/agent-one/heartbeat', { token: 'agent' })).status, 200)
    t.equal((await registry.get('/agents/stats', { token: 'admin' })).status, 200)
    t.equal(problemOf(t, await registry.get('/auth/session_status', { token: 'admin' })), 'session-invalid')
    t.equal(problemOf(t, await registry.post('/tokens/refresh', { token: 'agent' })), 'token-invalid')
    t.equal((await registry.delete('/agents/agent-one', { token: 'admin' })).status, 200)
    t.equal((await registry.post('/auth/logout', { token: 'admin' })).status, 200)
    t.equal(problemOf(t, await registry.get('/agents/stats', { token: 'admin' })), 'token-invalid')
  })

  await t.test('are refused when the host says no, says nothing, or nonsense', async t => {
    for (const token of ['none', 'odd', 'expired', 'throws', 'unknown']) t.equal(problemOf(t, await registry.get('/agents', { token })), 'token-invalid', token)
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
  ['throws what is no error', () => { throw Object.create(null) }, 403, 'insufficient-permissions'],
  ['hangs', () => new Promise(() => {}), 503, 'hook-failed']
]
for (const [name, hook, status, type] of hooks) {
  t.test(`a hook that ${name} refuses the registration, and spends nothing`, async t => {
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

t.test('all of these answers are what their schemas say', async t => { t.same(answers.findings, []) })
