import 'fast-check'
import t, { type Test } from 'tap'
import type { ProblemError } from '../../../src/errors.js'
import { Registry, type RegistryEvent, type RegistryOptions } from '../../../src/registry/registry.js'
import { type AgentFilter, count, slice } from '../../../src/registry/query.js'
import { type AgentRegistration } from '../../../src/protocol/schemas/agent.js'
import { MemoryAgentStore } from '../../../src/storage/memory/agent-store.js'
import type { Claim } from '../../../src/storage/agent-store.js'
import { KeyRing } from '../../../src/auth/keys.js'
import { OneTimeTokens, Tokens } from '../../../src/auth/tokens.js'
import type { Principal } from '../../../src/protocol/principal.js'
import { Revocations } from '../../../src/auth/revocations.js'
import { Enrollment } from '../../../src/registry/enrollment.js'
import { MemoryKeyValueStore } from '../../../src/storage/memory/kv-store.js'
import { KeyValueReplica } from '../../../src/storage/kv-store.js'
import { registration } from '../../support/harness.js'
import { hmacSigner } from '../auth/helper.js'
import { principal, rules } from './helper.js'
const owner: Claim = { kind: 'owner' }
const keyA: Claim = { kind: 'key', digest: 'key-a', exclusive: false }

interface Setup extends Partial<RegistryOptions> { clock?: () => number }

/** An open registry with the reported errors of hooks and listeners. */
async function open (t: Test, { clock, ...options }: Setup = {}) {
  const errors: unknown[] = []
  const store = options.store ?? new MemoryAgentStore({ leaseMs: 60_000, retentionMs: 60_000, ...(clock && { clock }) })
  const registry = new Registry({
    ...rules,
    store,
    leaseMs: 60_000,
    cleanupIntervalMs: 60_000,
    maxAgents: 100,
    ringSize: 100,
    hookTimeoutMs: 5000,
    hiddenFields: [],
    onError: error => errors.push(error),
    ...options
  })
  await registry.open()
  t.teardown(() => registry.close())
  const events: RegistryEvent[] = []
  registry.events.on('change', event => events.push(event))
  const register = (id = 'agent-one', more: object = {}, claim = owner) =>
    registry.register(registry.parse(registration(id, more)), claim, null)
  return { registry, store, errors, events, register }
}

async function refusal (promise: Promise<unknown>): Promise<string> {
  return promise.then(() => 'nothing', (error: ProblemError) => error.type ?? String(error))
}

async function faultsIn (promise: Promise<unknown>): Promise<unknown> {
  return promise.then(() => [], (error: ProblemError) => (error.members?.errors as Array<{ path: string }>).map(({ path }) => path))
}

t.test('registry events: each transition is an event with its reason and the previous record', async t => {
  const { registry, register, events } = await open(t)
  const { record: { incarnation } } = await register()
  await registry.heartbeat({ id: 'agent-one' })
  await registry.heartbeat({ id: 'agent-one', incarnation })
  await registry.setState({ id: 'agent-one', state: 'suspect', reason: 'connection-lost' })
  await registry.patch('agent-one', { name: 'Renamed' })
  await registry.setState({ id: 'agent-one', state: 'draining', reason: 'requested' })
  await register('agent-one', { name: 'Again' })
  await registry.unregister({ id: 'agent-one' }, 'left')
  t.match(events, [
    { type: 'registered', previous: null, reason: 'created', agent: { name: 'Agent One', state: 'starting' } },
    { type: 'alive', previous: 'starting', reason: 'first-sign', agent: { state: 'alive' } },
    { type: 'state', previous: 'alive', reason: 'connection-lost', agent: { state: 'suspect', status: 'alive' } },
    { type: 'updated', previous: 'suspect', reason: 'patched', agent: { name: 'Renamed' } },
    { type: 'state', previous: 'suspect', reason: 'requested', agent: { state: 'draining' } },
    { type: 'registered', previous: 'draining', reason: 'replaced', agent: { name: 'Again' } },
    { type: 'unregistered', previous: 'starting', reason: 'left', agent: { name: 'Again', state: 'starting' } }
  ])
  t.same(events.map(({ revision }) => revision), events.map((_, index) => `${registry.replica.epoch}:${index + 1}`))
  t.equal(registry.revision, events.at(-1)!.revision)
})

t.test('registry events: death, revival and removal are events too', async t => {
  let now = 1_000_000
  const { registry, store, register, events } = await open(t, { clock: () => now })
  await register()
  now += 60_000
  await store.expire({ cleanup: false })
  t.match(registry.stats(), { total_agents: 1, alive_agents: 0, dead_agents: 1, agent_types: { testing: 1 } })
  await registry.heartbeat({ id: 'agent-one' })
  now += 60_000
  await store.expire({ cleanup: false })
  now += 60_000
  await store.expire({ cleanup: true })
  t.same(events.map(({ type, reason, previous }) => [type, reason, previous]).slice(1), [
    ['dead', 'lease-expired', 'starting'], ['alive', 'revived', 'dead'], ['dead', 'lease-expired', 'alive'],
    ['unregistered', 'retention', 'dead']
  ])
  t.match(registry.stats(), { total_agents: 0, alive_agents: 0, dead_agents: 0, agent_types: {} })
})

t.test('registry events: each has its own name, and a listener that throws or rejects has no effect', async t => {
  const { registry, register, errors, events } = await open(t)
  const received: string[] = []
  registry.events.on('registered', () => { throw new Error('thrown') })
  registry.events.on('registered', async () => { throw new Error('rejected') })
  registry.events.on('registered', () => { received.push('second') })
  registry.events.once('registered', () => { received.push('once') })
  registry.on('change', () => { received.push('change') })
  t.equal((await register()).created, true)
  await register('agent-two')
  await new Promise(resolve => setImmediate(resolve))
  t.same(received, ['change', 'second', 'once', 'change', 'second'])
  t.same(errors.map(error => (error as Error).message).sort(), ['rejected', 'rejected', 'thrown', 'thrown'])
  t.equal(events.length, 2)
  t.equal(registry.get('agent-one')?.agent_id, 'agent-one')
})

t.test('registry events: an unsubscribed listener is not called, and the replica is current for listeners', async t => {
  const { registry, register } = await open(t)
  const seen: unknown[] = []
  const stop = registry.on('change', ({ id }) => { seen.push(registry.get(id)?.state) })
  await register()
  stop()
  await register('agent-two')
  t.same(seen, ['starting'])
})

t.test('onRegister: it may refuse with a reason, also asynchronously', async t => {
  const said = async (onRegister: RegistryOptions['onRegister']) => {
    const { register, registry } = await open(t, { onRegister, hookTimeoutMs: 50 })
    const answer = await register().then(() => 'registered', (error: ProblemError) => [error.type, error.message])
    t.equal(registry.replica.size, answer === 'registered' ? 1 : 0)
    return answer
  }
  t.same(await said(() => { throw new Error('not here') }), ['insufficient-permissions', 'not here'])
  t.same(await said(async () => { throw new Error('not now') }), ['insufficient-permissions', 'not now'])
  t.same(await said(() => Promise.reject(new Error('no'))), ['insufficient-permissions', 'no'])
  // A host may reject with a value that is not an error.
  t.same(await said(() =>
    Promise.reject(Object.create(null))), ['insufficient-permissions', 'The host application refused the registration'])
  t.equal(await said(() => {}), 'registered')
  t.equal(await said(async () => {}), 'registered')
})

t.test('onRegister: a hook that hangs refuses, and its late answer registers nothing', async t => {
  const alive = setInterval(() => {}, 1000)
  t.teardown(() => clearInterval(alive))
  let answer!: () => void
  const { registry, register } = await open(t, { onRegister: () => new Promise<void>(resolve => { answer = resolve }), hookTimeoutMs: 20 })
  t.equal(await refusal(register()), 'hook-failed')
  answer()
  await new Promise(resolve => setImmediate(resolve))
  t.equal(registry.replica.size, 0)
})

t.test('onRegister: it receives the registration and the caller, and cannot change them', async t => {
  const who = principal()
  const { registry } = await open(t, {
    onRegister: ({ registration, principal }) => {
      t.match(registration, { agent_id: 'agent-one', features: [] })
      t.equal(principal, who)
      registration.name = 'Changed'
    }
  })
  await registry.register(registry.parse(registration()), owner, who)
  t.equal(registry.get('agent-one')!.name, 'Agent One')
})

t.test('publicView: it decides the public fields of an agent', async t => {
  const shown = async (publicView: RegistryOptions['publicView']) => {
    const { registry, register } = await open(t, { publicView })
    await register()
    return registry.replica.get('agent-one')!.rendering.public()
  }
  t.equal(await shown(() => null), null)
  t.match(JSON.parse((await shown(registration => ({ ...registration, name: 'Public', agent_id: 'somebody-else' })))!), {
    name: 'Public', agent_id: 'agent-one'
  })
  t.match(JSON.parse((await shown(async registration => Object.assign(registration, { owner: 'nobody' })))!), { owner: 'nobody' })
})

t.test('publicView: hidden fields do not make an agent findable', async t => {
  const {
    registry, register
  } = await open(t, { publicView: registration => ({ ...registration, capabilities: ['public one'], agent_type: 'security' }) })
  await register('agent-one', { capabilities: ['secret one'], agent_type: 'testing' })
  const found = (view: 'full' | 'public', filter: AgentFilter) => slice(registry.replica, view, filter, { offset: 0, limit: 9 }).length
  t.equal(found('public', { capabilities: ['secret one'] }), 0)
  t.equal(found('public', { agent_type: 'testing' }), 0)
  t.equal(found('public', { capabilities: ['public one'], agent_type: 'SECURITY' }), 1)
  t.equal(found('full', { capabilities: ['secret one'], agent_type: 'testing' }), 1)
  t.equal(count(registry.replica, 'public', { agent_type: 'testing' }), 0)
})

t.test('publicView: a hook that throws, hangs or returns invalid data fails the request and is reported', async t => {
  const alive = setInterval(() => {}, 1000)
  t.teardown(() => clearInterval(alive))
  const rows: Array<RegistryOptions['publicView']> = [
    () => { throw new Error('broken') },
    async () => { throw new Error('broken') },
    () => new Promise(() => {}),
    registration => ({ ...registration, name: 'x' }),
    () => ({} as AgentRegistration),
    () => undefined as unknown as null,
    () => 'text' as unknown as null
  ]
  for (const publicView of rows) {
    const { registry, register, errors } = await open(t, { publicView, hookTimeoutMs: 20 })
    t.equal(await refusal(register()), 'hook-failed')
    t.equal(errors.length, 1)
    t.equal(registry.replica.size, 0)
  }
})

t.test('publicView: it is called again when a registration changes', async t => {
  const { registry, register } = await open(t, { publicView: registration => registration.name.startsWith('Secret') ? null : registration })
  await register()
  await registry.patch('agent-one', { name: 'Secret one' })
  t.equal(registry.replica.get('agent-one')!.rendering.public(), null)
  t.equal(registry.replica.discoverable.size, 0)
})

t.test('registry: the number of agents is limited in all and per key', async t => {
  const { register } = await open(t, { maxAgents: 3 })
  const claim: Claim = { ...keyA, maxAgents: 2 }
  await register('agent-a', {}, claim)
  await register('agent-b', {}, claim)
  const full = await register('agent-c', {}, claim).catch((error: ProblemError) => error) as ProblemError
  t.match(full, { type: 'quota-exceeded', statusCode: 429, message: /key/, headers: { 'retry-after': '60' }, members: { retry_after: 60 } })
  await register('agent-c')
  t.match(await register('agent-d').catch(error => error), { type: 'quota-exceeded', message: /registry is full/ })
  t.equal((await register('agent-a')).created, false)
})

t.test('register: an id in use is refused', async t => {
  const { registry, register } = await open(t)
  await register('agent-one', {}, keyA)
  await registry.heartbeat({ id: 'agent-one' })
  t.equal(await refusal(register('agent-one', {}, keyA)), 'duplicate-agent')
  await registry.setState({ id: 'agent-one', state: 'suspect', reason: 'test' })
  t.equal(await refusal(register('agent-one', {}, { ...keyA, digest: 'key-b' })), 'duplicate-agent')
  t.equal((await register('agent-one', {}, keyA)).created, false)
})

t.test('register: of two concurrent registrations one succeeds, also with hooks in between', async t => {
  const { registry } = await open(t, { onRegister: () => new Promise(resolve => setImmediate(resolve)) })
  const parsed = registry.parse(registration())
  const results = await Promise.allSettled(
    [registry.register(parsed, keyA, null), registry.register(parsed, { ...keyA, digest: 'key-b' }, null)]
  )
  t.same(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  t.match(results.find(({ status }) => status === 'rejected'), { reason: { type: 'duplicate-agent' } })
})

t.test('register: a registration or patch outside the scope of a key is refused, also for an agent of the key', async t => {
  const { registry } = await open(t)
  const now = Date.now
  const state = new KeyValueReplica(new MemoryKeyValueStore())
  const keys = new KeyRing(
    ['key-of-tests', 'key-of-others'].map(key => ({ key, exclusive: false, types: ['testing'] })), Buffer.from('secret')
  )
  const [keyA, keyB] = ['key-of-tests', 'key-of-others'].map(key => keys.find(key)!.digest)
  const enrollment = new Enrollment({
    registry,
    keys,
    tokens: new Tokens({ signer: hmacSigner(), namespace: 'default', expiresInMs: 60_000, now }),
    oneTimeTokens: new OneTimeTokens({ kv: state.store, now }),
    revocations: new Revocations({ kvReplica: state, maxTokenLifeMs: 60_000, now })
  })
  const register = (bearer: Principal | null, id: string, agentType = 'testing') =>
    enrollment.register(registry.parse(registration(id, { agent_type: agentType })), bearer)
  const temporary = (agentId: string) => principal({ type: 'temp', agentId, tokenId: agentId, keyDigest: keyA })
  const refused = { type: 'insufficient-permissions', message: "This key does not cover the agent_type 'Security'" }
  await register(temporary('agent-one'), 'agent-one')
  await t.rejects(register(temporary('agent-two'), 'agent-two', 'Security'), refused)
  await t.rejects(register(principal({ keyDigest: keyB }), 'agent-one', 'Security'), refused)
  await t.rejects(register(principal({ agentId: 'agent-new', keyDigest: keyB }), 'agent-new', 'Security'), refused)
  await t.rejects(enrollment.patch('agent-one', { agent_type: 'Security' }), refused)
  t.equal((await register(null, 'agent-host', 'Security')).created, true)
  t.equal(registry.get('agent-one')!.agent_type, 'testing')
})

t.test('patch: it merges, keeps the rest and is validated as a whole', async t => {
  const { registry, register } = await open(t)
  const { record } = await register('agent-one', { metadata: { a: 'b', c: 'd' }, features: ['f'], ai_context: 'how' })
  const patched = await registry.patch('agent-one', { metadata: { a: null, e: 1 }, features: null, name: ' Renamed ', unknown: 1 })
  t.match(registry.get('agent-one'), { name: 'Renamed', features: [], ai_context: 'how' })
  t.strictSame(registry.get('agent-one')!.metadata, { c: 'd', e: 1 })
  t.match(patched, { incarnation: record.incarnation, registeredAt: record.registeredAt, revision: record.revision + 1 })
  t.notOk('unknown' in registry.get('agent-one')!)
  t.same(await faultsIn(registry.patch('agent-one', { metadata: { c: null, e: null } })), ['/metadata'])
  t.same(await faultsIn(registry.patch('agent-one', { name: null, max_tokens: 0 })), ['/name', '/max_tokens'])
  t.same(await faultsIn(registry.patch('agent-one', { agent_type: 'other' })), ['/agent_type'])
  for (const patch of [null, [], 'text', 7, undefined]) t.same(await faultsIn(registry.patch('agent-one', patch)), [''])
  t.same(await faultsIn(registry.patch('agent-one', { metadata: { k: JSON.parse('['.repeat(5000) + ']'.repeat(5000)) } })), [''])
  t.equal(registry.replica.get('agent-one')!.record.revision, patched.revision)
})

t.test('patch: forbidden members are refused by path, also when they would change nothing', async t => {
  const { registry, register } = await open(t)
  await register()
  for (const member of [
    'agent_id', 'public_key', 'owner', 'status', 'state', 'last_seen', 'registered_at', 'revision', 'incarnation', 'metrics', 'similarity'
  ]) {
    t.same(await faultsIn(registry.patch('agent-one', { [member]: null })), [`/${member}`])
    t.same(await faultsIn(registry.patch('agent-one', { name: 'Renamed', [member]: Reflect.get(registry.get('agent-one')!, member) })), [
      `/${member}`
    ])
  }
  t.same(await faultsIn(registry.patch('agent-one', JSON.parse(
    '{"__proto__":{"name":"x"},"metadata":{"constructor":null},"requirements":{"user_configuration":{"prototype":1}}}'
  ))),
  ['/__proto__', '/metadata/constructor', '/requirements/user_configuration/prototype'])
  t.equal(registry.get('agent-one')!.name, 'Agent One')
})

t.test('patch: a patch of a revision other than the newest is refused', async t => {
  const { registry, register } = await open(t, { publicView: registration => new Promise(resolve => setImmediate(resolve, registration)) })
  const { record: { revision } } = await register()
  t.equal(await refusal(registry.patch('agent-one', { name: 'One' }, { ifRevision: revision - 1 })), 'precondition-failed')
  const both = await Promise.all(['One', 'Two'].map(name => refusal(registry.patch('agent-one', { name }, { ifRevision: revision }))))
  t.same(both.sort(), ['nothing', 'precondition-failed'])
  t.equal(await refusal(registry.patch('agent-one', { name: 'Three' }, { ifRevision: revision })), 'precondition-failed')
  t.equal(await refusal(registry.patch('agent-one', { name: 'Three' }, { ifRevision: revision + 1 })), 'nothing')
})

t.test('patch: an agent removed during its patch is not found', async t => {
  let leave = async () => {}
  const { registry, register } = await open(t, { publicView: async registration => { await leave(); return registration } })
  await register()
  leave = async () => { await registry.unregister({ id: 'agent-one' }, 'left') }
  t.equal(await refusal(registry.patch('agent-one', { name: 'Renamed' })), 'agent-not-found')
  t.equal(await refusal(registry.patch('agent-one', {})), 'agent-not-found')
})

t.test('registry: an unknown agent is not found, and an older instance gets its own error', async t => {
  const { registry, register } = await open(t)
  const calls = (id: string, incarnation?: number) => [
    registry.heartbeat({ id, incarnation }), registry.setState({ id, incarnation, state: 'draining', reason: 'x' }),
    registry.unregister({ id, incarnation }, 'x')
  ]
  t.same(await Promise.all(calls('agent-none').map(refusal)), Array(3).fill('agent-not-found'))
  t.equal(registry.get('agent-none'), undefined)
  const { record } = await register()
  t.same(await Promise.all(calls('agent-one', record.incarnation - 1).map(refusal)), Array(3).fill('stale-incarnation'))
  t.equal(registry.get('agent-one')!.state, 'starting')
  t.match(await registry.renew([{ id: 'agent-none' }, { id: 'agent-one' }]), [{ ok: false, reason: 'not-found' }, { ok: true }])
})

t.test('heartbeat: it is visible at once, without a change', async t => {
  let now = 1_000_000
  const { registry, register } = await open(t, { clock: () => now })
  await register()
  await registry.heartbeat({ id: 'agent-one' })
  const { revision } = registry
  now += 5000
  const record = await registry.heartbeat({ id: 'agent-one' })
  t.equal(registry.get('agent-one')!.last_seen, new Date(now).toISOString())
  t.equal(record.lastSeen, now)
  t.equal(registry.revision, revision)
  now += 5000
  await registry.setState({ id: 'agent-one', state: 'alive', reason: 'requested' })
  t.equal(registry.get('agent-one')!.last_seen, new Date(now).toISOString())
})

t.test('registry: a revision is a position while its changes are retained', async t => {
  const { registry, register } = await open(t, { ringSize: 3 })
  const { epoch } = registry.replica
  t.equal(registry.positionOf(registry.revision), 0)
  for (let index = 0; index < 5; index++) await register(`agent-${index}`)
  t.same([0, 1, 2, 3, 4, 5, 6].map(n => registry.positionOf(`${epoch}:${n}`)), [undefined, undefined, 2, 3, 4, 5, undefined])
  for (const text of [
    '', '5', ':5', `${epoch}`, `${epoch}:`, `${epoch}:x`, `${epoch}:-1`, `${epoch}:5.0`, `${epoch}: 5`, `${epoch}:5:5`, `${epoch}:1e0`,
    `x${epoch}:5`, `${epoch}:${'9'.repeat(16)}`
  ]) {
    t.equal(registry.positionOf(text), undefined, text)
  }
  t.same(registry.changeLog.after(3, 10).map(({ id }) => id), ['agent-3', 'agent-4'])
})

t.test('registry: opening a store with agents loads them', async t => {
  const store = new MemoryAgentStore({ leaseMs: 60_000, retentionMs: 60_000 })
  const first = await open(t, { store })
  await first.register('agent-one')
  await first.register('agent-two')
  const { registry } = await open(t, { store })
  t.same([registry.replica.size, registry.revision, registry.replica.digest], [2, first.registry.revision, first.registry.replica.digest])
  t.equal(registry.positionOf(registry.revision), 2)
})
