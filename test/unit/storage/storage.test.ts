import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  type ContractFlags, type ContractSettings, stateContract, type StateContractFlags, type StateContractSettings, storeContract
} from '../../../src/storage/contract/index.js'
import type { AgentRecord, Change, StoreListener } from '../../../src/storage/agent-store.js'
import { MemoryAgentStore } from '../../../src/storage/memory/agent-store.js'
import { MemoryKeyValueStore } from '../../../src/storage/memory/kv-store.js'
import { KeyedTokenBuckets } from '../../../src/lib/token-bucket.js'
import { forever, type KeyValueListener } from '../../../src/storage/kv-store.js'
import { LevelStorage, type LevelStorageOptions } from '../../../src/storage/level/storage.js'
import {
  type ChangeEntry, composeRecord, packContent, readMetrics, type RecordHead, unpackContent
} from '../../../src/storage/redis/agent-codec.js'
import { ChangeSequencer, type SequencerListener } from '../../../src/storage/redis/change-stream.js'
import type { Touch } from '../../../src/storage/redis/connections.js'
import { HeartbeatBatcher, ReportQueue } from '../../../src/storage/redis/heartbeats.js'
import { manualClock } from '../auth/helper.js'

async function build (settings: ContractSettings) {
  const store = new MemoryAgentStore(settings)
  return { store, reopen: async () => store }
}

async function buildWithItsClock ({ leaseMs, retentionMs, preservation }: ContractSettings) {
  return { store: new MemoryAgentStore({ leaseMs, retentionMs, preservation }) }
}

/** Runs the contract inside a subtest, whose tests `declare` collects. */
function contract (name: string, builder: typeof build | typeof buildWithItsClock, flags: ContractFlags) {
  t.test(name, async t => {
    const tests: Array<Promise<unknown>> = []
    storeContract({
      test: (name, run) => tests.push(t.test(name, async t => { await t.resolves(run()) })),
      build: builder,
      flags
    })
    t.ok(tests.length > 70)
    await Promise.all(tests)
  })
}

contract('memory agent store: passes the agent store contract', build, { persistent: true })
contract('memory agent store: passes the agent store contract on its own clock', buildWithItsClock, { injectedClock: false })

t.test('key-value contract: a suite may omit the flags', async t => {
  const names: string[] = []
  storeContract({ test: name => names.push(name), build })
  t.notOk(names.includes('agents outlive the store, and the numbers of changes go on or the epoch is another'))
  t.equal(new Set(names).size, names.length)
})

const deaf: StoreListener = { changed () {}, touched () {}, reloaded () {}, availability () {} }

t.test('memory store: a closed store does not notify', async t => {
  const store = new MemoryAgentStore({ leaseMs: 1000, retentionMs: 1000 })
  let received = 0
  await store.open({ ...deaf, changed: changes => { received += changes.length } })
  const command = { content: { body: '{}', type: 'testing', capabilities: [] }, claim: { kind: 'owner' } as const, maxAgents: 10 }
  await store.register({ id: 'one', ...command })
  await store.close()
  await store.register({ id: 'two', ...command })
  t.equal(received, 1)
})

t.test('memory store: two stores have different epochs', async t => {
  const epochs = await Promise.all([1, 2].map(() => new MemoryAgentStore({ leaseMs: 1000, retentionMs: 1000 }).open(deaf)))
  t.not(epochs[0]!.epoch, epochs[1]!.epoch)
})

t.test('memory store: changes before opening have no effect on others', async t => {
  const store = new MemoryAgentStore({ leaseMs: 1000, retentionMs: 1000 })
  const command = {
    id: 'one', content: { body: '{}', type: 'testing', capabilities: [] }, claim: { kind: 'owner' } as const, maxAgents: 10
  }
  t.match(await store.register(command), { ok: true, created: true })
  t.match(await store.open(deaf), { revision: 1, agents: [{ id: 'one' }] })
})

async function buildMemoryState ({ clock }: StateContractSettings) {
  const store = new MemoryKeyValueStore({ clock })
  return { store, another: async () => store, reopen: async () => store }
}

/** Runs the contract inside a subtest, whose tests `declare` collects. */
function runStateContract (name: string, builder: typeof buildMemoryState, flags: StateContractFlags, least: number) {
  t.test(name, async t => {
    const tests: Array<Promise<unknown>> = []
    stateContract({
      test: (name, run) => tests.push(t.test(name, async t => { await t.resolves(run()) })),
      build: builder,
      flags
    })
    t.ok(tests.length >= least)
    await Promise.all(tests)
  })
}

runStateContract('memory kv store: passes the key-value contract', buildMemoryState, { persistent: true, shared: true }, 19)
runStateContract('memory kv store: passes the key-value contract on its own clock', async () =>
  buildMemoryState({ clock: Date.now }), { injectedClock: false, persistent: true, shared: true }, 17)

t.test('key-value contract: a suite may omit the flags', async t => {
  const names: string[] = []
  stateContract({ test: name => names.push(name), build: buildMemoryState })
  t.notOk(names.includes('processes share a bucket'))
  t.equal(new Set(names).size, names.length)
})

t.test('memory kv store: a closed store does not notify', async t => {
  const state = new MemoryKeyValueStore()
  let received = 0
  const listener: KeyValueListener = { changed () { received++ }, reloaded () {} }
  await state.open(listener)
  await state.put({ kind: 'session', key: 'one', value: 'x', until: forever })
  await state.close()
  await state.put({ kind: 'session', key: 'two', value: 'x', until: forever })
  t.equal(received, 1)
})

t.test('memory kv store: in a limited kind the oldest entries are evicted', async t => {
  const state = new MemoryKeyValueStore({ limits: { ticket: 2 } })
  for (const key of ['a', 'b', 'c']) await state.put({ kind: 'ticket', key, value: key, until: forever })
  t.same((await state.list('ticket')).map(({ key }) => key), ['b', 'c'])
})

const settings = { burst: 5, windowMs: 50_000 }

t.test('memory kv store: buckets are bounded, the emptiest are kept longest, and full ones are dropped', async t => {
  const now = manualClock()
  const buckets = new KeyedTokenBuckets(now, 20)
  for (let n = 0; n < 5; n++) buckets.take(['worst'], settings)
  for (let n = 0; n < 100; n++) buckets.take([`some-${n}`], settings)
  t.ok(buckets.size <= 20)
  t.equal(buckets.take(['worst'], settings), 10_000)
  now.advance(50_000)
  for (let n = 0; n < 20; n++) buckets.take([`other-${n}`], settings)
  t.ok(buckets.size <= 20)
  t.equal(buckets.take(['worst'], settings), null)
  buckets.putBack(['worst'], settings)
  for (let n = 0; n < 20; n++) buckets.putBack([`other-${n}`], settings)
  t.equal(buckets.size, 0)
})

t.test('memory kv store: a drained bucket has a token after the stated time', async t => {
  const now = manualClock()
  const buckets = new KeyedTokenBuckets(now)
  buckets.drain(['a'], settings, 4_000)
  t.equal(buckets.take(['a'], settings), 4_000)
  buckets.drain(['a'], settings, 1_000)
  t.equal(buckets.take(['a'], settings), 4_000, 'it never gains by that')
  now.advance(4_000)
  t.equal(buckets.take(['a'], settings), null)
  t.equal(buckets.take(['a'], settings), 10_000)
})

const root = t.testdir()
let folders = 0
const newFolder = () => join(root, `store-${folders++}`)

async function buildAgents (settings: ContractSettings, more: Partial<LevelStorageOptions> = {}) {
  const path = newFolder()
  const make = () => new LevelStorage({ path, ...settings, ...more }).agents
  return { store: make(), reopen: async () => make() }
}

async function buildState ({ clock }: StateContractSettings) {
  const path = newFolder()
  const make = () => new LevelStorage({ path, leaseMs: 1000, retentionMs: 1000, clock }).kv
  return { store: make(), reopen: async () => make() }
}

/** Runs a contract inside a subtest, whose tests `declare` collects. */
function runLevelContract (name: string, least: number, declare: (test: (name: string, run: () => Promise<void>) => unknown) => void) {
  t.test(name, async (t: Test) => {
    const tests: Array<Promise<unknown>> = []
    declare((name, run) => tests.push(t.test(name, async t => { await t.resolves(run()) })))
    t.ok(tests.length >= least)
    await Promise.all(tests)
  })
}

runLevelContract('level agent store: passes the agent store contract', 70, test => {
  storeContract({ test, build: buildAgents, flags: { persistent: true } })
})

runLevelContract('level agent store: passes the agent store contract with synced writes', 70, test => {
  storeContract({ test, build: settings => buildAgents(settings, { durability: 'sync' }), flags: { persistent: true } })
})

runLevelContract('level kv store: passes the key-value contract', 15, test => {
  stateContract({ test, build: buildState, flags: { persistent: true } })
})

const content = { body: '{"a":"\\n"}', type: 'testing', capabilities: ['one'] }
const head: RecordHead = { registeredAt: 1, created: 1, incarnation: 1, revision: 1, state: 'starting' }

/** A sequencer at number 1 of an epoch with one agent, and its events. */
function sequencerOf (more: Partial<SequencerListener> = {}) {
  const events = { changes: [] as Change[], touched: [] as AgentRecord[], broken: 0 }
  const sequencer: ChangeSequencer = new ChangeSequencer('me', {
    changed: changes => { events.changes.push(...changes) },
    touched: records => { events.touched.push(...records) },
    broken: () => { events.broken++ },
    ...more
  })
  const records = () => new Map([['one', composeRecord('one', { content, head, seen: 10, metrics: null })]])
  sequencer.load({ epoch: 'e', revision: 1, mark: 'm1', records: records() })
  return { sequencer, events, records }
}

function entryOf (n: number, more: Partial<ChangeEntry> = {}): ChangeEntry {
  return {
    n,
    epoch: 'e',
    mark: `m${n}`,
    after: `m${n - 1}`,
    by: 'other',
    event: 'alive',
    id: 'one',
    reason: 'r',
    was: head,
    wasSeen: 10,
    head: { ...head, state: 'alive', revision: n },
    seen: 20,
    ...more
  }
}

const outcomeOf = (promise: Promise<unknown>) => promise.then(() => 'reached', (error: Error) => error.message)

t.test('change stream: entries are delivered once and in order, from any source', async t => {
  const { sequencer, events } = sequencerOf()
  sequencer.offer([entryOf(3)])
  const waiting = outcomeOf(sequencer.reached('e', 3))
  t.same(events.changes, [])
  sequencer.offer([entryOf(2), entryOf(3)])
  sequencer.offer([entryOf(2), entryOf(3)])
  t.same(events.changes.map(({ n }) => n), [2, 3])
  t.equal(await waiting, 'reached')
  t.equal(await outcomeOf(sequencer.reached('e', 2)), 'reached')
  t.equal(events.broken, 0)
})

t.test('change stream: an entry with another predecessor, epoch or agent breaks the sequence', async t => {
  for (const entry of [entryOf(2, { after: 'x' }), entryOf(2, { epoch: 'f' }), entryOf(2, { id: 'two' })]) {
    const { sequencer, events } = sequencerOf()
    sequencer.offer([entry, entryOf(3)])
    t.same([events.changes, events.broken, sequencer.n], [[], 1, 1])
    sequencer.pause()
    sequencer.offer([entry])
    t.equal(events.broken, 1)
  }
})

t.test('change stream: a waiter for an epoch is notified when it was read or replaced again', async t => {
  const { sequencer, events, records } = sequencerOf()
  const waiting = [['f', 5], ['f', 7], ['g', 1]].map(([epoch, n]) => outcomeOf(sequencer.reached(epoch as string, n as number)))
  t.equal(events.broken, 3)
  sequencer.load({ epoch: 'f', revision: 5, mark: '', records: records() })
  sequencer.resume()
  t.same([await waiting[0], await waiting[2]], ['reached', 'Redis has lost writes'])
  sequencer.offer([entryOf(6, { epoch: 'f', after: '' })])
  sequencer.fail(new Error('away'))
  t.equal(await waiting[1], 'away')
})

t.test('change stream: heartbeats of entries that have not arrived wait for them', async t => {
  const { sequencer, events, records } = sequencerOf()
  const touch: Touch = { id: 'one', seen: 30, n: 2, metrics: '25\n{"success_rate":1}' }
  sequencer.touch([touch, { id: 'none', seen: 30, n: 1 }])
  t.same(events.touched, [])
  sequencer.offer([entryOf(2)])
  t.match(events.touched, [{ lastSeen: 30, revision: 2, metrics: { lastActive: 25 } }])
  sequencer.pause()
  sequencer.touch([{ ...touch, seen: 40 }])
  sequencer.load({ epoch: 'e', revision: 2, mark: 'm2', records: records() })
  sequencer.resume()
  t.match(events.touched[1], { lastSeen: 40 })
})

t.test('change stream: older heartbeats and reports are ignored', async t => {
  const { sequencer, events } = sequencerOf()
  sequencer.touch([{ id: 'one', seen: 30, n: 1, metrics: '25\n{"success_rate":1}' }])
  sequencer.touch([{ id: 'one', seen: 20, n: 1, metrics: '15\n{"success_rate":0}' }])
  sequencer.touch([{ id: 'one', seen: 30, n: 1, metrics: '25\n{"success_rate":1}' }])
  t.equal(events.touched.length, 1)
  t.match(sequencer.get('one'), { lastSeen: 30, metrics: { success_rate: 1 } })
})

t.test('change stream: updates of a former incarnation are ignored', async t => {
  const { sequencer, events } = sequencerOf()
  sequencer.offer([
    entryOf(2, { event: 'unregistered', head: undefined, formerly: packContent(content) }),
    entryOf(3, { event: 'registered', was: undefined, head: { ...head, created: 3, revision: 3 }, content: packContent(content), seen: 20 })
  ])
  const late: Touch = { id: 'one', seen: 19, n: 1, metrics: '19\n{"success_rate":1}' }
  sequencer.touch([late])
  t.match(sequencer.note(late), { lastSeen: 20, metrics: null })
  t.same(events.touched, [])
})

t.test('leases: a lease belongs to the process that last renewed it', async t => {
  const { sequencer } = sequencerOf()
  sequencer.note({ id: 'one', seen: 20, n: 1 })
  sequencer.touch([{ id: 'one', seen: 15, n: 1 }])
  t.same([...sequencer.ownLeases], ['one'])
  sequencer.touch([{ id: 'one', seen: 30, n: 1 }])
  t.same([...sequencer.ownLeases], [])
  sequencer.offer([entryOf(2, { by: 'me', wasSeen: 30, seen: 40 })])
  t.same([...sequencer.ownLeases], ['one'])
  sequencer.offer([entryOf(3, { event: 'state', wasSeen: 40, seen: 40 })])
  t.same([...sequencer.ownLeases], ['one'])
  sequencer.offer([entryOf(4, { wasSeen: 40, seen: 50 })])
  t.same([...sequencer.ownLeases], [])
  sequencer.note({ id: 'one', seen: 60, n: 4 })
  sequencer.load({ epoch: 'e', revision: 5, mark: '', records: new Map() })
  t.same([...sequencer.ownLeases], [])
})

t.test('records: content and metrics survive an encode and decode unchanged', async t => {
  for (const more of [{}, { publicBody: null }, { publicBody: '{}', publicFacets: { type: 'x', capabilities: [] } }]) {
    t.same(unpackContent(packContent({ ...content, ...more })), { ...content, ...more })
  }
  t.same(readMetrics('7\n{"success_rate":0.5}'), { success_rate: 0.5, lastActive: 7 })
})

const report = (id: string, incarnation?: number) =>
  ({ id, update: { request: { responseTime: 1, success: true } }, ...(incarnation !== undefined && { incarnation }) })

t.test('reports: those of one tick are sent together, and an overtaken one is computed again', async t => {
  const calls: string[][] = []
  const stored = `9\n${JSON.stringify({
    success_rate: 1,
    avg_response_time: 1,
    total_requests: 10,
    reputation_score: 1,
    requests_processed: 10,
    average_response_time: 1,
    error_rate: 0
  })}`
  const reports = new ReportQueue(() => null, async args => {
    calls.push(args)
    return { now: 20, results: calls.length === 1 ? [stored, 5] : [6] }
  })
  const reported = await Promise.all([reports.add(report('one')), reports.add(report('one')), reports.add(report('two', 3))])
  t.same(calls.map(args => args.filter((_, index) => index % 4 !== 3)), [['one', '', '', 'two', '3', ''], ['one', '', stored]])
  t.match(reported, [{
    n: 6,
    metrics: {
      total_requests: 11
    }
  }, { n: 6, metrics: { total_requests: 12, lastActive: 20 } }, { n: 5, metrics: { total_requests: 1 } }])
})

t.test('reports: one of a removed agent or an unreachable store ends', async t => {
  const answers = [[''], [-1]]
  const reports = new ReportQueue(() => readMetrics('9\n{}'), async () => {
    const results = answers.shift()
    if (!results) throw new Error('away')
    return { now: 20, results }
  })
  t.same(await reports.add(report('one')), { ok: false, n: -1 })
  t.equal(await outcomeOf(reports.add(report('one'))), 'away')
})

t.test('heartbeats: those of one tick are sent together, at most a thousand per call', async t => {
  const sizes: number[] = []
  const batcher = new HeartbeatBatcher(async heartbeats => {
    sizes.push(heartbeats.length)
    return heartbeats.map(({ id }, index) => ({ id, n: index, seen: 1 }))
  })
  const renewed = await Promise.all(Array.from({ length: 1500 }, (_, index) => batcher.add({ id: `agent-${index}` })))
  t.same(sizes, [1000, 500])
  t.equal(renewed[1499]!.n, 499)
  const failing = new HeartbeatBatcher(async () => { throw new Error('away') })
  t.equal(await outcomeOf(failing.add({ id: 'one' })), 'away')
})
