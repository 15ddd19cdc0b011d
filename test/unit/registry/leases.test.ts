import fc from 'fast-check'
import t, { type Test } from 'tap'
import { problem } from '../../../src/errors.js'
import { Registry } from '../../../src/registry/registry.js'
import { LeaseMonitor } from '../../../src/registry/lease-monitor.js'
import { MemoryAgentStore, type MemoryAgentStoreOptions } from '../../../src/storage/memory/agent-store.js'
import { monotonicClock } from '../../../src/lib/clock.js'
import { LeaseQueue, SelfPreservation } from '../../../src/storage/memory/leases.js'
import { registration, sleep, until } from '../../support/harness.js'
import { rules } from './helper.js'
import { seed } from '../../support/lengths.js'

const leaseMs = 200

/** Blocks the event loop. */
function block (ms: number) {
  const end = performance.now() + ms
  while (performance.now() < end);
}

async function open (t: Test, {
  retentionMs = 60_000, cleanupIntervalMs = 60_000, store
}: { retentionMs?: number, cleanupIntervalMs?: number, store?: MemoryAgentStore } = {}) {
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

t.test('lease monitor: a death is visible within a second of its deadline', async t => {
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

t.test('lease monitor: an agent with heartbeats in time stays alive', async t => {
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

t.test('lease monitor: a blocked event loop expires no agent', async t => {
  const { registry, register } = await open(t)
  const ids = ['agent-one', 'agent-two', 'agent-three']
  for (const id of ids) await register(id)
  const dead: string[] = []
  registry.events.on('dead', event => dead.push(event.agent_id))
  await sleep(60)
  block(2 * leaseMs)
  // The due sweep runs before the queued heartbeats.
  await sleep(70)
  t.same(dead, [])
  for (const id of ids) await registry.heartbeat({ id })
  t.same(ids.map(id => registry.get(id)!.state), ['alive', 'alive', 'alive'])
  await until(() => dead.length === 3)
})

t.test('lease monitor: dead agents are removed after their retention', async t => {
  const { registry, register } = await open(t, { retentionMs: 50, cleanupIntervalMs: 30 })
  const events: string[] = []
  registry.events.on('change', ({ type, reason }) => events.push(`${type} ${reason}`))
  await register('agent-one')
  await until(() => registry.replica.size === 0)
  t.same(events, ['registered created', 'dead lease-expired', 'unregistered retention'])
})

t.test('lease monitor: a closed registry does not sweep', async t => {
  const { registry, register } = await open(t)
  await register('agent-one')
  await registry.close()
  await sleep(2 * leaseMs)
  t.equal(registry.get('agent-one')!.state, 'starting')
})

t.test('lease monitor: held agents are released on request', async t => {
  const { registry, register } = await open(t, { store: new MemoryAgentStore({ leaseMs, retentionMs: 60_000 }) })
  const reasons: string[] = []
  registry.events.on('change', ({ reason }) => reasons.push(reason))
  // Enough agents that some are held even if a slow machine expires the first ones individually.
  for (let index = 0; index < 40; index++) await register(`agent-${index}`)
  await until(() => reasons.includes('protected'))
  t.equal(registry.get('agent-39')!.status, 'alive')
  await registry.releaseHeld()
  await until(() => reasons.includes('preservation-ended'))
})

/** A store whose sweeps can fail or wait. */
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

t.test('lease monitor: a slow store has one sweep at a time, and closing waits for it', async t => {
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

t.test('lease monitor: time lost during a sweep is added to the leases by the next one', async t => {
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

t.test('lease monitor: a failing store is reported and retried, and pending lease extensions are kept', async t => {
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

t.test('lease monitor: an outage of the store is reported once', async t => {
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

t.test('lease monitor: during a store outage it makes no calls, and leases are extended by its length', async t => {
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

t.test('lease queue: expired leases are read oldest first, and stay until deleted', async t => {
  const queue = new LeaseQueue()
  queue.set('a', 10)
  queue.set('b', 10)
  queue.set('c', 11)
  queue.set('a', 12)
  t.same([...queue.due(9)], [])
  t.same([...queue.due(11)], ['b', 'c'])
  t.same([...queue.due(12)], ['b', 'c', 'a'])
  queue.delete('c')
  queue.delete('never')
  t.same([...queue.due(12)], ['b', 'a'])
  t.equal(queue.size, 2)
  queue.shift(5)
  t.same([...queue.due(12)], [])
  t.same([...queue.due(15)], ['b'])
})

t.test('lease queue: expired leases may be deleted while they are read', async t => {
  const queue = new LeaseQueue()
  for (let index = 0; index < 10; index++) queue.set(`agent-${index}`, index)
  for (const id of queue.due(6)) queue.delete(id)
  t.same([...queue.due(100)], ['agent-7', 'agent-8', 'agent-9'])
})

t.test('lease queue: leases deleted or renewed since the read started are skipped', async t => {
  const queue = new LeaseQueue()
  for (const id of ['a', 'b', 'c', 'd']) queue.set(id, 1)
  const read: string[] = []
  for (const id of queue.due(1)) {
    read.push(id)
    queue.delete('b')
    queue.set('c', 2)
  }
  t.same(read, ['a', 'd'])
  t.same([...queue.due(2)], ['a', 'd', 'c'])
})

interface Model { deadlines: Map<string, number>, now: number }
const storeLeaseMs = 100

/** Applies one step to the queue and to a naive model. */
function step (queue: LeaseQueue, model: Model, [kind, id, ms]: [string, string, number]) {
  if (kind === 'stall') {
    model.now += ms
    queue.shift(ms)
    for (const [known, deadline] of model.deadlines) model.deadlines.set(known, deadline + ms)
  } else if (kind === 'set') {
    queue.set(id, model.now + storeLeaseMs)
    model.deadlines.set(id, model.now + storeLeaseMs)
  } else if (kind === 'delete') {
    queue.delete(id)
    model.deadlines.delete(id)
  } else {
    model.now += ms
  }
}

t.test(`lease queue: it finds the same expired leases as a full scan (TEST_SEED=${seed})`, async t => {
  const command = fc.tuple(fc.constantFrom('set', 'set', 'delete', 'pass', 'stall'), fc.constantFrom('a', 'b', 'c', 'd', 'e'), fc.nat(60))
  t.doesNotThrow(() => fc.assert(fc.property(fc.array(command, { maxLength: 60 }), steps => {
    const queue = new LeaseQueue()
    const model: Model = { deadlines: new Map(), now: 0 }
    return steps.every(entry => {
      step(queue, model, entry)
      const due = [...model.deadlines].filter(([, deadline]) => deadline <= model.now).map(([id]) => id)
      return JSON.stringify([...queue.due(model.now)].sort()) === JSON.stringify(due.sort())
    })
  })))
})

t.test('lease queue: the cost of a read depends on the expired leases only', async t => {
  const queue = new LeaseQueue()
  for (let index = 0; index < 200_000; index++) queue.set(`agent-${index}`, index)
  let read = 0
  const deadlines = queue.due(4)
  while (!deadlines.next().done) read++
  t.equal(read, 5)
  const start = performance.now()
  for (let index = 0; index < 1000; index++) queue.due(-1).next()
  t.ok(performance.now() - start < 1000, 'a sweep without deaths reads one lease')
})

t.test('self-preservation: without expired leases none is held, also just after many expired', async t => {
  const preservation = new SelfPreservation({ leaseMs: 1000, enabled: true })
  t.equal(preservation.holds(0, 50, 100), true)
  t.equal(preservation.holds(1, 0, 100), false)
  t.equal(preservation.holds(999, 1, 100), true, 'those of the last lease count')
  t.equal(preservation.holds(1000, 1, 100), false, 'those of a lease ago do not')
})

t.test('self-preservation: when disabled it holds no lease', async t => {
  const preservation = new SelfPreservation({ leaseMs: 1000, enabled: false })
  t.equal(preservation.holds(0, 1000, 1000), false)
  t.equal(preservation.heldCount, 0)
})

t.test('self-preservation: a paused release does not catch up', async t => {
  const preservation = new SelfPreservation({ leaseMs: 100, enabled: true })
  const go = (now: number) => {
    const due = preservation.due(now, 20)
    for (const id of due) preservation.forget(id)
    return due.length
  }
  preservation.hold('a', 0)
  t.equal(go(299), 0)
  t.equal(go(300), 1)
  for (let index = 0; index < 20; index++) preservation.hold(`b${index}`, 10_000)
  t.equal(go(10_299), 0)
  t.equal(go(10_300), 1)
  t.equal(go(11_300), 3)
})

t.test('self-preservation: the release rate is that of the fleet at its start', async t => {
  const preservation = new SelfPreservation({ leaseMs: 100, enabled: true })
  for (let index = 0; index < 100; index++) preservation.hold(`a${index}`, 0)
  preservation.release()
  t.same(preservation.due(1, 100), ['a0'])
  t.equal(preservation.due(1001, 1).length, 15)
  t.equal(preservation.heldCount, 100, 'the caller reports those it took')
})

t.test('lease clock: it counts milliseconds, follows the system clock and never goes back', async t => {
  const clock = monotonicClock()
  let last = clock()
  t.ok(Math.abs(last - Date.now()) < 1000)
  for (let index = 0; index < 10_000; index++) {
    const now = clock()
    if (now < last || !Number.isInteger(now)) t.fail(`${now} after ${last}`)
    last = now
  }
  const start = clock()
  await new Promise(resolve => setTimeout(resolve, 30))
  t.ok(clock() - start >= 20)
})
