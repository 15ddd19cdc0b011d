import t, { type Test } from 'tap'
import { problem } from '../../../src/errors.js'
import { Registry } from '../../../src/registry/registry.js'
import { LeaseMonitor } from '../../../src/registry/lease-monitor.js'
import { MemoryAgentStore, type MemoryAgentStoreOptions } from '../../../src/storage/memory/agent-store.js'
import { registration, sleep, until } from '../../support/harness.js'
import { rules } from './helper.js'

const leaseMs = 200

/** Stands still as a busy event loop does. */
function block (ms: number) {
  const end = performance.now() + ms
  while (performance.now() < end);
}

async function open (t: Test, { retentionMs = 60_000, cleanupIntervalMs = 60_000, store }: { retentionMs?: number, cleanupIntervalMs?: number, store?: MemoryAgentStore } = {}) {
  const errors: unknown[] = []
  const registry = new Registry({
    ...rules,
    store: store ?? new MemoryAgentStore({ leaseMs, retentionMs }),
    leaseMs,
    cleanupIntervalMs,
    maxAgents: 1000,
    ringSize: 100,
    hookTimeoutMs: 1000,
    hiddenFields: [],
    onError: error => errors.push(error)
  })
  await registry.open()
  t.teardown(() => registry.close())
  const register = (id: string) => registry.register(registry.parse(registration(id)), { kind: 'owner' }, null)
  return { registry, register, errors }
}

t.test('a death is visible within a second of its deadline', async t => {
  const { registry, register } = await open(t)
  const died = new Promise<number>(resolve => registry.events.once('dead', () => resolve(performance.now())))
  const alive = setInterval(() => {}, 100)
  t.teardown(() => clearInterval(alive))
  const start = performance.now()
  await register('agent-one')
  const after = await died - start
  t.ok(after >= leaseMs - 5, `not before its deadline, after ${after} ms`)
  t.ok(after < leaseMs + 1000 + 4000, `after ${after} ms`)
  t.equal(registry.get('agent-one')!.status, 'dead')
})

t.test('an agent that shows life in time lives on', async t => {
  const { registry, register } = await open(t)
  await register('agent-one')
  const dead: unknown[] = []
  registry.events.on('dead', event => dead.push(event))
  const end = performance.now() + 5 * leaseMs
  while (performance.now() < end) {
    await registry.heartbeat({ id: 'agent-one' })
    await sleep(20)
  }
  t.same(dead, [])
})

t.test('a blocked event loop kills nobody', async t => {
  const { registry, register } = await open(t)
  const ids = ['agent-one', 'agent-two', 'agent-three']
  for (const id of ids) await register(id)
  const dead: string[] = []
  registry.events.on('dead', event => dead.push(event.agent_id))
  await sleep(60)
  block(2 * leaseMs)
  // The sweep that is due now comes before the signs of life that wait behind it.
  await sleep(70)
  t.same(dead, [])
  for (const id of ids) await registry.heartbeat({ id })
  t.same(ids.map(id => registry.get(id)!.state), ['alive', 'alive', 'alive'])
  await until(() => dead.length === 3)
})

t.test('dead agents are removed after their retention', async t => {
  const { registry, register } = await open(t, { retentionMs: 50, cleanupIntervalMs: 30 })
  const events: string[] = []
  registry.events.on('change', ({ type, reason }) => events.push(`${type} ${reason}`))
  await register('agent-one')
  await until(() => registry.replica.size === 0)
  t.same(events, ['registered created', 'dead lease-expired', 'unregistered retention'])
})

t.test('a closed registry sweeps no more', async t => {
  const { registry, register } = await open(t)
  await register('agent-one')
  await registry.close()
  await sleep(2 * leaseMs)
  t.equal(registry.get('agent-one')!.state, 'starting')
})

t.test('agents that are held go when that is asked for', async t => {
  const { registry, register } = await open(t, { store: new MemoryAgentStore({ leaseMs, retentionMs: 60_000 }) })
  const reasons: string[] = []
  registry.events.on('change', ({ reason }) => reasons.push(reason))
  // So many that some are held even if a slow machine lets the first of them end one by one.
  for (let index = 0; index < 40; index++) await register(`agent-${index}`)
  await until(() => reasons.includes('protected'))
  t.equal(registry.get('agent-39')!.status, 'alive')
  await registry.releaseHeld()
  await until(() => reasons.includes('preservation-ended'))
})

/** A store whose sweeps can be made to fail or to wait. */
class SlowStore extends MemoryAgentStore {
  readonly extended: number[] = []
  sweeps = 0
  gate: Promise<unknown> = Promise.resolve()
  extensionFault: Error | undefined

  constructor (options: Partial<MemoryAgentStoreOptions> = {}) {
    super({ leaseMs, retentionMs: 60_000, ...options })
  }

  override async extend (ms: number) {
    if (this.extensionFault) throw this.extensionFault
    this.extended.push(ms)
    await super.extend(ms)
  }

  override async expire (options: { cleanup: boolean }) {
    this.sweeps++
    await this.gate
    return super.expire(options)
  }
}

function start (t: Test, store: SlowStore) {
  const errors: unknown[] = []
  const monitor = new LeaseMonitor({ store, leaseMs, cleanupIntervalMs: 60_000, onError: error => errors.push(error) })
  monitor.start()
  t.teardown(() => monitor.stop())
  return { monitor, errors }
}

t.test('a slow store has one sweep at a time, and closing waits for it', async t => {
  const store = new SlowStore()
  const { monitor } = start(t, store)
  let open!: () => void
  store.gate = new Promise<void>(resolve => { open = resolve })
  await until(() => store.sweeps === 1)
  await sleep(200)
  t.equal(store.sweeps, 1)
  let stopped = false
  const stopping = monitor.stop().then(() => { stopped = true })
  await sleep(20)
  t.equal(stopped, false)
  open()
  await stopping
  t.equal(store.sweeps, 1)
})

t.test('time that was lost while a sweep was under way is given to the leases by the next', async t => {
  const store = new SlowStore()
  start(t, store)
  let open!: () => void
  store.gate = new Promise<void>(resolve => { open = resolve })
  await until(() => store.sweeps === 1)
  const before = store.extended.length
  block(2 * leaseMs)
  await sleep(70)
  t.equal(store.extended.length, before)
  open()
  await until(() => store.extended.length > before)
  const given = store.extended.slice(before).reduce((sum, ms) => sum + ms)
  t.ok(given > leaseMs, `${given} ms`)
})

t.test('a store that fails is told to the host and asked again, and owes its leases still', async t => {
  const store = new SlowStore()
  const { errors } = start(t, store)
  store.extensionFault = new Error('away')
  block(2 * leaseMs)
  await until(() => errors.length >= 2)
  t.match(errors, [{ message: 'away' }])
  t.same([store.extended, store.sweeps], [[], 0])
  store.extensionFault = undefined
  await until(() => store.sweeps > 0)
  t.ok(store.extended[0]! > leaseMs)
})

t.test('a store that is away is told once, however often it is asked', async t => {
  const store = new SlowStore()
  const { errors } = start(t, store)
  for (const outages of [1, 2]) {
    const sweeps = store.sweeps
    store.gate = Promise.reject(problem('storage-unavailable', 'away'))
    store.gate.catch(() => {})
    await until(() => store.sweeps >= sweeps + 4)
    t.equal(errors.length, outages)
    store.gate = Promise.resolve()
    const failed = store.sweeps
    await until(() => store.sweeps >= failed + 2)
  }
  t.match(errors, [{ message: 'away' }, { message: 'away' }])
})

t.test('while the store says that it is away nobody asks it, and the leases get that time', async t => {
  const store = new SlowStore()
  const { monitor } = start(t, store)
  monitor.setAvailable(false)
  const sweeps = store.sweeps
  await sleep(200)
  t.equal(store.sweeps, sweeps)
  monitor.setAvailable(true, 12_345)
  await until(() => store.sweeps > sweeps)
  t.ok(store.extended.some(ms => ms >= 12_345))
})
