import { setTimeout as pause } from 'node:timers/promises'
import fastify from 'fastify'
import t, { type Test } from 'tap'
import agentRegistry, {
  type AgentStore, MemoryAgentStore, type OnRegisterHook, type Principal,
  problemTypes, type RegistryEvent
} from '../../../src/index.js'
import {
  build, defaults, type Harness, problemOf, registration, until
} from '../../support/harness.js'

const alive = ['starting', 'alive']
const host: Principal = {
  type: 'admin',
  role: 'admin',
  subject: 'host-user',
  agentId: null,
  incarnation: null,
  tokenId: 'host-1',
  sessionId: null,
  expiresAt: null,
  scopes: [],
  keyDigest: null
}

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
  await t.rejects(registry.register({ ...registration(), agent_id: '' }), {
    code: 'AGENT_REGISTRY_VALIDATION_FAILED', statusCode: 422, members: { errors: [{ path: '/agent_id' }] }
  })
  for (const call of [() =>
    registry.unregister('nobody'), () => registry.heartbeat('nobody'), () => registry.setStatus('nobody', 'draining')]) {
    await t.rejects(
      async () => { await call() }, { code: 'AGENT_REGISTRY_AGENT_NOT_FOUND', statusCode: problemTypes['agent-not-found'][1] }
    )
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
    ['throws a value that is not an error', () => Promise.reject(
      Object('text')
    ) as Promise<void>, 403, 'insufficient-permissions', /host application refused/],
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
  await t.rejects(async () => {
    await app.register(agentRegistry, { storage: { agents: Object.assign(Object.create(store), { open: store.open }) } })
  }, { message: '/var/data is locked by another process' })
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
