import { setTimeout as pause } from 'node:timers/promises'
import fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import agentRegistry, {
  type AgentRegistryOptions, type AgentStore, MemoryAgentStore, MemoryKeyValueStore, type OnRegisterHook, type Principal,
  problemTypes, type RegistryEvent
} from '../../../src/index.js'
import { isProblem } from '../../../src/errors.js'
import type { RegistrationBody } from '../../../src/protocol/schemas/agent.js'
import {
  answerChecker, build, defaults, fingerprint, type Harness, keys, problemOf, registration, secret, until, withDefaults
} from '../../support/harness.js'

const alive = ['starting', 'alive']
const host: Principal = { type: 'admin', role: 'admin', subject: 'host-user', agentId: null, incarnation: null, tokenId: 'host-1', sessionId: null, expiresAt: null, scopes: [], keyDigest: null }

t.test('embedding: the host uses the registry without HTTP requests', async t => {
  const { app, ...rest } = await build(t)
  t.ok(rest.base)
  const { agentRegistry: registry } = app
  const seen: RegistryEvent[] = []
  registry.events.on('change', event => { seen.push(event) })

  const answer = await registry.register(registration())
  t.match(answer, { status: 'success', agent_id: 'agent-one', created: true, revision: registry.revision, access_token: /^ey/ })
  t.match(registry.get('agent-one'), { agent_id: 'agent-one', status: 'alive' })
  t.equal(registry.get('agent-two'), undefined)
  t.same((await registry.register(registration('agent-two', { agent_type: 'security' }))).created, true)
  t.same(registry.list().map(agent => agent.agent_id), ['agent-one', 'agent-two'])
  t.same(registry.list({ agent_type: 'security' }).map(agent => agent.agent_id), ['agent-two'])
  t.same(registry.list({ status: 'dead' }), [])
  t.match(registry.stats(), { total_agents: 2, alive_agents: 2, dead_agents: 0, agent_types: { testing: 1, security: 1 } })

  t.equal((await registry.setStatus('agent-two', 'draining')).state, 'draining')
  t.equal((await registry.setStatus('agent-two', 'alive')).state, 'alive')
  const before = registry.get('agent-one')!.last_seen
  await until(async () => (await registry.heartbeat('agent-one')).last_seen > before)
  await registry.releaseHeld()
  await registry.unregister('agent-two')
  t.equal(registry.get('agent-two'), undefined)
  t.same(seen.map(({ type, agent_id: id }) => `${type} ${id}`),
    ['registered agent-one', 'registered agent-two', 'state agent-two', 'alive agent-two', 'alive agent-one', 'unregistered agent-two'])
  t.equal(new Set(seen.map(event => event.revision)).size, seen.length, 'each change has its own revision')
})

t.test('embedding: failures have the problems of the REST API', async t => {
  const { app: { agentRegistry: registry } } = await build(t)
  await t.rejects(registry.register({ ...registration(), agent_id: '' }), { code: 'AGENT_REGISTRY_VALIDATION_FAILED', statusCode: 422, members: { errors: [{ path: '/agent_id' }] } })
  for (const call of [() => registry.unregister('nobody'), () => registry.heartbeat('nobody'), () => registry.setStatus('nobody', 'draining')]) {
    await t.rejects(async () => { await call() }, { code: 'AGENT_REGISTRY_AGENT_NOT_FOUND', statusCode: problemTypes['agent-not-found'][1] })
  }
})

t.test('embedding: an agent registered by the host is the same over HTTP and sockets', async t => {
  const registry = await build(t)
  const watcher = await registry.watcher()
  const { access_token: token } = await registry.app.agentRegistry.register(registration())
  t.equal((await watcher.next('agents_update')).data.agents[0].agent_id, 'agent-one')
  const socket = await registry.agentSocket(token)
  await registry.app.agentRegistry.unregister('agent-one')
  t.equal((await socket.closed).code, 4001)
  watcher.close()
})

t.test('embedding: a listener of the host that throws has no effect', async t => {
  const { app: { agentRegistry: registry } } = await build(t)
  const received: string[] = []
  registry.events.on('registered', () => { throw new Error('listener') })
  registry.events.on('change', ({ agent_id: id }) => { received.push(id) })
  await registry.register(registration())
  t.same(received, ['agent-one'])
  t.ok(registry.get('agent-one'))
})

t.test('embedding: the decorator can have another name', async t => {
  const { app } = await build(t, { decorateAs: 'fleet' })
  t.notOk(app.hasDecorator('agentRegistry'))
  t.match(app.getDecorator<typeof app.agentRegistry>('fleet').stats(), { total_agents: 0 })
})

t.test('embedding: inject works without listening', async t => {
  const app = fastify()
  t.teardown(() => app.close())
  await app.register(agentRegistry, { ...defaults, routes: { root: true, docs: true } })
  for (const url of ['/', '/health/ready', '/public/stats', '/openapi.json', '/.well-known/arcp-configuration', '/docs/json']) {
    const { statusCode, body } = await app.inject(url)
    t.equal(statusCode, 200, `${url} ${statusCode === 200 ? '' : body}`)
  }
  await app.agentRegistry.register(registration())
  t.equal((await app.inject('/public/agent/agent-one')).json().agent_id, 'agent-one')
})

const shortHookTimeout = { limits: { hookTimeoutMs: 100 } }
const never = () => new Promise<never>(() => {})

t.test('onRegister: it allows, refuses, or times out', async t => {
  const table: Array<[name: string, hook: OnRegisterHook, status: number, problem?: string, detail?: RegExp]> = [
    ['allows at once', () => {}, 200],
    ['passes later', async () => { await pause(10) }, 200],
    ['refuses at once', () => { throw new Error('Not on my watch') }, 403, 'insufficient-permissions', /Not on my watch/],
    ['refuses later', async () => { throw new Error('Not on my watch') }, 403, 'insufficient-permissions', /Not on my watch/],
    ['throws a value that is not an error', () => Promise.reject(Object('text')) as Promise<void>, 403, 'insufficient-permissions', /host application refused/],
    ['hangs', never, 503, 'hook-failed', /in time/],
    ['modifies its argument', ({ registration }) => { registration.name = 'Changed' }, 200]
  ]
  for (const [name, onRegister, status, problem, detail] of table) {
    await t.test(name, async t => {
      const registry = await build(t, { ...shortHookTimeout, onRegister })
      const answer = await registry.register()
      t.equal(answer.status, status)
      if (problem) t.equal(problemOf(t, answer), problem)
      if (detail) t.match(answer.body.detail, detail)
      t.same(await publicNames(registry), status === 200 ? ['Agent One'] : [])
    })
  }
})

t.test('onRegister: it receives the registration and the caller', async t => {
  const contexts: Array<Parameters<OnRegisterHook>[0]> = []
  const registry = await build(t, { onRegister: context => { contexts.push(context) } })
  await registry.register()
  await registry.app.agentRegistry.register(registration('agent-two'))
  t.match(contexts[0], { registration: { agent_id: 'agent-one' }, principal: { type: 'temp', agentId: 'agent-one' } })
  t.match(contexts[1], { registration: { agent_id: 'agent-two' }, principal: null })
})

t.test('authenticate: it accepts a token of the host on routes and sockets', async t => {
  const registry = await build(t, { authenticate: token => token === 'of-the-host' ? host : null })
  t.equal((await registry.get('/agents', { token: 'of-the-host' })).status, 200)
  t.equal((await registry.get('/agents', { token: 'of-nobody' })).status, 401)
  const socket = await registry.agentSocket('of-the-host')
  t.equal(socket.success.role, 'admin')
  socket.close()
  t.equal((await registry.get('/agents', { token: await registry.agent() })).status, 200, 'tokens of the registry stay valid')
})

t.test('authenticate: a hook that fails, returns invalid data or hangs refuses access', async t => {
  const table: Array<[name: string, hook: (token: string) => unknown, status: number, problem: string]> = [
    ['null', () => null, 401, 'token-invalid'],
    ['undefined', () => {}, 401, 'token-invalid'],
    ['true', () => true, 401, 'token-invalid'],
    ['a principal that lacks members', () => ({ role: 'admin' }), 401, 'token-invalid'],
    ['a role that does not exist', () => ({ ...host, role: 'root' }), 401, 'token-invalid'],
    ['an expired principal', async () => ({ ...host, expiresAt: 1 }), 401, 'token-invalid'],
    ['a principal without the rights', () => ({ ...host, type: 'user', role: 'user' }), 403, 'insufficient-permissions'],
    ['throws', () => { throw new Error('a secret of the host') }, 401, 'token-invalid'],
    ['rejects', async () => { throw new Error('a secret of the host') }, 401, 'token-invalid'],
    ['hangs', never, 503, 'hook-failed']
  ]
  for (const [name, authenticate, status, problem] of table) {
    await t.test(name, async t => {
      const registry = await build(t, { ...shortHookTimeout, authenticate: authenticate as () => Principal })
      const answer = await registry.get('/agents/stats', { token: 'of-the-host' })
      t.equal(answer.status, status)
      t.equal(problemOf(t, answer), problem)
      t.notMatch(answer.text, /a secret of the host|of-the-host/)
    })
  }
})

async function publicNames (registry: Harness): Promise<string[]> {
  const { body } = await registry.get('/public/discover')
  return body.map((agent: { name: string }) => agent.name)
}

t.test('publicView: it changes a registration, hides it, or fails the request when it fails', async t => {
  const table: Array<[name: string, view: (given: ReturnType<typeof registration>) => unknown, status: number, names: string[]]> = [
    ['another one', given => ({ ...given, name: 'Somebody', metadata: { shown: 'this' } }), 200, ['Somebody']],
    ['another one, later', async given => ({ ...given, name: 'Somebody' }), 200, ['Somebody']],
    ['none', () => null, 200, []],
    ['the id cannot be changed', given => ({ ...given, agent_id: 'agent-two', name: 'Somebody' }), 200, ['Somebody']],
    ['an invalid view', () => ({ name: 'Somebody' }), 503, []],
    ['nothing', () => {}, 503, []],
    ['throws', () => { throw new Error('a secret of the host') }, 503, []],
    ['hangs', never, 503, []]
  ]
  for (const [name, view, status, names] of table) {
    await t.test(name, async t => {
      const registry = await build(t, { ...shortHookTimeout, publicView: view as () => null })
      const answer = await registry.register()
      t.equal(answer.status, status)
      t.same(await publicNames(registry), names)
      if (status === 503) t.equal(problemOf(t, answer), 'hook-failed')
      else {
        t.equal((await registry.get('/agents/agent-one', { token: answer.body.access_token })).body.name, 'Agent One',
          'the agents tier has the whole registration')
      }
      t.notMatch(answer.text, /a secret of the host/)
    })
  }
})

/** A memory store that records its calls. */
function recordingStore (): { store: AgentStore, calls: string[] } {
  const calls: string[] = []
  const memory = new MemoryAgentStore({ leaseMs: 60_000, retentionMs: 60_000, preservation: true })
  const store = new Proxy(memory, {
    get (target, name) {
      const member: unknown = Reflect.get(target, name)
      if (typeof member !== 'function') return member
      return (...args: unknown[]) => {
        calls.push(String(name))
        return Reflect.apply(member, target, args)
      }
    }
  })
  return { store, calls }
}

t.test('host storage: the registry opens, uses and closes it', async t => {
  const { store, calls } = recordingStore()
  const app = fastify()
  await app.register(agentRegistry, { storage: { agents: store } })
  await app.agentRegistry.register(registration())
  await app.agentRegistry.heartbeat('agent-one')
  await app.agentRegistry.unregister('agent-one')
  await app.close()
  const order = calls.filter(name => !['now', 'expire', 'extend'].includes(name))
  t.same(order, ['open', 'register', 'renew', 'remove', 'close'])
})

t.test('host storage: one that cannot be opened stops the start with its own error', async t => {
  const { store } = recordingStore()
  store.open = async () => { throw new Error('/var/data is locked by another process') }
  const app = fastify()
  await t.rejects(async () => { await app.register(agentRegistry, { storage: { agents: Object.assign(Object.create(store), { open: store.open }) } }) }, { message: '/var/data is locked by another process' })
  await app.close()
})

t.test('host storage: one that fails later causes a 500 without its message', async t => {
  const { store } = recordingStore()
  const broken: AgentStore = Object.assign(Object.create(store), { register: async () => { throw new Error('disk at /var/data is full') } })
  const registry = await build(t, { storage: { agents: broken } })
  const answer = await registry.register()
  t.equal(problemOf(t, answer), 'internal-error')
  t.notMatch(answer.text, /var.data/)
  t.equal((await registry.get('/public/stats')).status, 200)
})

async function closing (t: Test, registry: Harness) {
  const closed = registry.app.close()
  await t.resolves(closed)
}

t.test('closing: the host answers running requests, and closes its sockets with a reason', async t => {
  let enter = () => {}
  const entered = new Promise<void>(resolve => { enter = resolve })
  const registry = await build(t, { onRegister: async () => { enter(); await pause(150) } })
  const watcher = await registry.watcher()
  const answer = registry.register()
  await entered
  await closing(t, registry)
  t.equal((await answer).status, 200)
  t.equal((await watcher.closed).code, 1001)
  t.ok(watcher.all.some(frame => frame.type === 'going_away'))
})

t.test('closing: the host may close twice, before listening, or right after the start', async t => {
  const app = fastify()
  await app.register(agentRegistry)
  await app.close()
  await app.close()
  const other = fastify()
  other.register(agentRegistry)
  await other.close()
  const registry = await build(t)
  await closing(t, registry)
  await t.rejects(registry.get('/public/stats'))
})

t.test('embedding: leases expire without calls of the host, and events notify it', async t => {
  const { app: { agentRegistry: registry } } = await build(t, { lease: { durationMs: 200 } })
  const dead = new Promise<RegistryEvent>(resolve => { registry.events.once('dead', resolve) })
  await registry.register(registration())
  t.ok(alive.includes(registry.get('agent-one')!.state))
  const event = await dead
  t.equal(event.agent_id, 'agent-one')
  t.equal(registry.get('agent-one')!.status, 'dead')
  t.equal((await registry.heartbeat('agent-one')).status, 'alive')
})

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
  const { body: { access_token: token } } = await registry.post('/agents/register', { token: await registry.tempToken(), body: agent(), headers: from('192.0.2.1') })
  await registry.post('/agents/register', { token, body: agent(), headers: from('192.0.2.2') })
  await until(() => lines.some(line => line.includes('A newer instance')))
  t.match(JSON.parse(lines.find(line => line.includes('A newer instance'))!), { agentId: 'agent-one', address: '192.0.2.2', previousAddress: '192.0.2.1' })
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
  const temp = await app.inject({ method: 'POST', url: '/auth/agent/request_temp_token', payload: { agent_id: 'agent-one', agent_type: 'testing', agent_key: keys.plain } })
  const answer = await app.inject({ method: 'POST', url: '/agents/register', headers: { authorization: `Bearer ${temp.json().temp_token}` }, payload: agent() })
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
  t.same([await accepts(one, await temporaryToken(one)), await accepts(two, await temporaryToken(one))], [true, false], 'a store in memory is not shared')
  const kept = { agentKeys, storage: { agents: new MemoryAgentStore({ leaseMs: 1000, retentionMs: 1000 }), kv: new MemoryKeyValueStore() } }
  const before = await rawApp(t, kept)
  const token = await temporaryToken(before)
  await before.close()
  t.equal(await accepts(await rawApp(t, kept), token), true)
  const [x, y] = ['x'.repeat(32), 'y'.repeat(32)]
  const [onlyX, onlyY, both] = [await rawApp(t, { agentKeys, jwt: { secret: x } }), await rawApp(t, { agentKeys, jwt: { secret: y } }), await rawApp(t, { agentKeys, jwt: { secret: [x, y] } })]
  t.same([await accepts(both, await temporaryToken(onlyX)), await accepts(both, await temporaryToken(onlyY))], [true, true])
  t.same([await accepts(onlyX, await temporaryToken(both)), await accepts(onlyY, await temporaryToken(both))], [true, false], 'the first secret signs')
})

t.test('temporary tokens: one whose key is no longer configured registers nothing', async t => {
  const [before, after] = [await rawApp(t, { agentKeys: [keys.plain], jwt: { secret } }), await rawApp(t, { agentKeys: [keys.other], jwt: { secret } })]
  const headers = bearer(await temporaryToken(before))
  const registered = await after.inject({ method: 'POST', url: '/agents/register', headers, payload: agent() })
  t.match(registered.json(), { type: /token-invalid$/ })
  const unregistered = await after.inject({ method: 'DELETE', url: '/agents/agent-one', headers })
  t.match(unregistered.json(), { type: /token-invalid$/ })
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
