import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { RedisStorage, type RedisStorageOptions } from '../../src/storage/redis/storage.js'
import type { AgentRecord, Change } from '../../src/storage/agent-store.js'
import {
  brokerContract, type ContractFlags, type ContractSettings, stateContract, type StateContractSettings, storeContract
} from '../../src/storage/contract/index.js'
import { newNamespace, Peer, registration } from '../support/redis.js'
import { eventually, sharedRedis } from '../support/redis-server.js'
import { seed } from '../support/lengths.js'

const server = await sharedRedis(t)

async function peers (t: Test, count: number, options: Partial<ConstructorParameters<typeof RedisStorage>[0]> = {}): Promise<Peer[]> {
  const namespace = newNamespace()
  const opened = await Promise.all(Array.from({ length: count }, () => Peer.open(server, { namespace, ...options })))
  t.teardown(() => Promise.all(opened.map(peer => peer.close())))
  return opened
}

const comparable = ({ n, event, id, reason, before, after }: Change) =>
  ({ n, event, id, reason, before: before && still(before), after: after && still(after) })
/** The change without the members that heartbeats update, which are sent separately. */
const still = ({ lastSeen, metrics, ...rest }: AgentRecord) => rest

t.test('redis agents: another process receives every write, in order and once', async t => {
  const [a, b] = await peers(t, 2) as [Peer, Peer]
  for (let index = 0; index < 30; index++) {
    const [writer, other] = index % 2 ? [a, b] : [b, a]
    await writer.store.register(registration(`agent-${index % 7}`))
    await other.store.renew([{ id: `agent-${index % 7}` }])
  }
  await b.store.remove({ id: 'agent-3', reason: 'left' })
  await eventually('both processes have the same state', () => a.n === b.n && a.n === 61)
  t.same(a.changes.map(comparable), b.changes.map(comparable))
  t.equal(a.digest, b.digest)
})

t.test(`redis agents: after concurrent random writes three processes hold the same agents and changes (TEST_SEED=${seed})`, async t => {
  const id = fc.integer({ min: 0, max: 7 }).map(index => `agent-${index}`)
  const step = fc.tuple(fc.constantFrom('register', 'remove', 'renew', 'drain', 'suspect', 'update', 'report'), id, fc.nat({ max: 2 }))
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 120 }), async steps => {
    const processes = await peers(t, 3)
    await Promise.all(steps.map(async ([kind, id, index]) => {
      const { store, agents } = processes[index]!
      if (kind === 'register') {
        await store.register(
          registration(id, { content: { body: `{"by":${index}}`, type: 'testing', capabilities: [] } })
        )
      } else if (kind === 'remove') await store.remove({ id, reason: 'left' })
      else if (kind === 'renew') await store.renew([{ id }])
      else if (kind === 'report') await store.report({ id, update: { request: { responseTime: 1, success: true } } })
      else if (kind === 'update') await store.update({ id, content: registration(id).content, revision: agents.get(id)?.revision ?? 1 })
      else await store.setState({ id, state: kind === 'drain' ? 'draining' : 'suspect', reason: 'asked' })
    }))
    const last = Math.max(...processes.map(({ n }) => n))
    await eventually('all processes have the same state', () => processes.every(({ n }) => n === last))
    const fresh = await Peer.open(server, { namespace: processes[0]!.namespace })
    t.same(new Set([...processes, fresh].map(({ digest }) => digest)).size, 1)
    for (const { changes } of processes) t.same(changes.map(comparable), processes[0]!.changes.map(comparable))
    await Promise.all([fresh, ...processes].map(peer => peer.close()))
  }), { numRuns: 15 })
})

t.test('redis agents: a change carries the record before and after it, also when another process wrote it', async t => {
  const [a, b] = await peers(t, 2) as [Peer, Peer]
  await a.store.register(registration('one', { claim: { kind: 'key', digest: 'k', exclusive: false } }))
  await a.store.report({ id: 'one', update: { values: { success_rate: 0.5 } } })
  const before = a.agents.get('one')!
  await a.store.update({
    id: 'one',
    content: {
      body: '{"b":2}', type: 'other', capabilities: ['x'], publicBody: '{}', publicFacets: { type: 'o', capabilities: [] }
    },
    revision: before.revision
  })
  await a.store.remove({ id: 'one', reason: 'left' })
  await eventually('b received it', () => b.n === a.n)
  t.same(b.changes, a.changes)
  const [updated, removed] = b.changes.slice(-2)
  t.match(updated, {
    event: 'updated',
    before: {
      body: registration('one').content.body, ownerKey: 'k', metrics: { success_rate: 0.5 }
    },
    after: { body: '{"b":2}', publicBody: '{}', publicFacets: { type: 'o' } }
  })
  t.match(removed, { event: 'unregistered', before: { body: '{"b":2}', type: 'other', metrics: { success_rate: 0.5 } }, after: null })
})

t.test('redis agents: heartbeats and reports reach another process without a change', async t => {
  const [a, b] = await peers(t, 2) as [Peer, Peer]
  await a.store.register(registration('one'))
  await a.store.renew([{ id: 'one' }])
  await eventually('b has it', () => b.agents.has('one') && b.n === a.n)
  const { lastSeen } = b.agents.get('one')!
  await sleep(5)
  await a.store.report({ id: 'one', update: { request: { responseTime: 2, success: true } } })
  await eventually('b has the report', () => b.agents.get('one')!.metrics?.total_requests === 1)
  t.ok(b.agents.get('one')!.lastSeen > lastSeen)
  await a.store.renew([{ id: 'one' }, { id: 'none' }])
  const seen = (await a.store.renew([{ id: 'one' }]))[0]
  await eventually('b has the heartbeat', () => b.agents.get('one')!.lastSeen === (seen as { record: AgentRecord }).record.lastSeen)
  t.equal(b.agents.get('one')!.metrics?.total_requests, 1)
  t.equal(b.n, 2)
})

t.test('redis agents: an agent that registers again after removal keeps no reports, in any process', async t => {
  const [a, b] = await peers(t, 2) as [Peer, Peer]
  for (let round = 1; round <= 10; round++) {
    await b.store.register(registration('one'))
    await a.store.report({ id: 'one', update: { request: { responseTime: 2, success: true } } })
    await b.store.remove({ id: 'one', reason: 'left' })
    await b.store.register(registration('one'))
    await a.store.renew([{ id: 'one' }])
    await a.store.report({ id: 'two', update: { request: { responseTime: 2, success: true } } })
    // Received after all changes before it.
    await b.store.register(registration('two'))
    await a.store.report({ id: 'two', update: { request: { responseTime: round, success: true } } })
    await eventually('b has the last report', () => b.agents.get('two')!.metrics?.avg_response_time === round)
    t.same([a, b].map(({ agents }) => agents.get('one')!.metrics), [null, null])
    for (const id of ['one', 'two']) await b.store.remove({ id, reason: 'left' })
  }
})

t.test('redis agents: concurrent reports of several processes are all counted', async t => {
  const processes = await peers(t, 3)
  await processes[0]!.store.register(registration('one'))
  const outcomes = await Promise.all(Array.from({ length: 300 }, (_, index) =>
    processes[index % 3]!.store.report({ id: 'one', update: { request: { responseTime: 1, success: index % 3 !== 0 } } })))
  t.same(outcomes.map(outcome => (outcome as { record: AgentRecord }).record.metrics!.total_requests)
    .sort((x, y) => x - y), Array.from({ length: 300 }, (_, index) => index + 1))
  const outcome = await processes[1]!.store.report({ id: 'one', update: { values: {} } })
  t.match(outcome, { ok: true, record: { metrics: { total_requests: 300, requests_processed: 300 } } })
})

t.test('redis agents: reports of an older instance of an agent do not count', async t => {
  const [a] = await peers(t, 1) as [Peer]
  const update = { request: { responseTime: 1, success: true } }
  const first = await a.store.register(registration('one')) as { record: AgentRecord }
  const second = await a.store.register(registration('one')) as { record: AgentRecord }
  const [stale, fresh, any] = await Promise.all([first.record.incarnation, second.record.incarnation, undefined].map(incarnation =>
    a.store.report({ id: 'one', update, incarnation })))
  t.same(stale, { ok: false, reason: 'stale-incarnation' })
  t.match([fresh, any], [{ record: { metrics: { total_requests: 1 } } }, { record: { metrics: { total_requests: 2 } } }])
})

t.test('redis agents: a thousand leases that expire at once each expire once, with several processes sweeping', async t => {
  const processes = await peers(t, 3, { leaseMs: 600, preservation: false })
  const ids = Array.from({ length: 1200 }, (_, index) => `agent-${index}`)
  await Promise.all(ids.map((id, index) => processes[index % 3]!.store.register(registration(id))))
  await sleep(650)
  const counts = await Promise.all(processes.map(({ store }) => store.expire({ cleanup: true })))
  t.equal(counts.reduce((sum, count) => sum + count), 1200)
  await eventually('all received it', () => processes.every(({ n }) => n === 2400))
  for (const { changes } of processes) t.same(changes.filter(({ event }) => event === 'dead').map(({ id }) => id).sort(), [...ids].sort())
})

t.test('redis agents: self-preservation applies to all of a thousand leases', async t => {
  let now = Date.now()
  const [a] = await peers(t, 1, { leaseMs: 1000, clock: () => now }) as [Peer]
  const ids = Array.from({ length: 4400 }, (_, index) => ({ id: `agent-${index}` }))
  await Promise.all(ids.map(({ id }) => a.store.register(registration(id))))
  now += 500
  await a.store.renew(ids.slice(660))
  now += 500
  t.equal(await a.store.expire({ cleanup: false }), 660)
  t.equal(a.changes.filter(({ event }) => event === 'dead').length, 660)
  now += 500
  t.equal(await a.store.expire({ cleanup: false }), 3740)
  t.equal(a.changes.filter(({ reason }) => reason === 'protected').length, 3740)
})

t.test('redis agents: leases are extended by the time that the process was stopped', async t => {
  let now = Date.now()
  const [a, b] = await peers(t, 2, { leaseMs: 1000, preservation: false, clock: () => now }) as [Peer, Peer]
  for (const id of ['one', 'two', 'three']) await a.store.register(registration(id))
  await eventually('b has them', () => b.n === 3)
  now++
  await b.store.renew([{ id: 'two' }, { id: 'three' }])
  now++
  await a.store.renew([{ id: 'three' }])
  await eventually('a has the renewal of b', () => a.n === 5 && b.n === 5)
  await sleep(600)
  now += 900
  await a.store.extend(600)
  now += 150
  await b.store.expire({ cleanup: false })
  await eventually('a received it', () => a.n === b.n)
  t.same(a.changes.slice(5).map(({ id, event }) => [id, event]), [['two', 'dead']])
})

t.test('redis agents: namespaces in one Redis are isolated', async t => {
  const [[a], [b]] = await Promise.all([peers(t, 1), peers(t, 1)]) as unknown as [[Peer], [Peer]]
  await a.storage.kv.open({ changed () {}, reloaded () {} })
  const received: unknown[] = []
  await b.storage.kv.open({ changed: entry => { received.push(entry) }, reloaded () {} })
  await a.store.register(registration('one'))
  await a.storage.kv.put({ kind: 'session', key: 's', value: 'v', until: Date.now() + 60_000 })
  await a.storage.kv.takeTokens(['x'], { burst: 1, windowMs: 60_000 })
  await b.store.register(registration('two'))
  t.same([[...a.agents.keys()], [...b.agents.keys()]], [['one'], ['two']])
  t.same(await b.store.renew([{ id: 'one' }]), [{ ok: false, reason: 'not-found' }])
  t.same([
    await b.storage.kv.get('session', 's'), await b.storage.kv.takeTokens(['x'], { burst: 1, windowMs: 60_000 }), received
  ], [undefined, null, []])
})

t.test('redis agents: a process that starts later has the newest changes', async t => {
  const [a] = await peers(t, 1, { changes: 30 }) as [Peer]
  for (let index = 0; index < 40; index++) {
    const { id, ...rest } = registration(`agent-${index % 5}`)
    await a.store.register({ id, ...rest, content: { ...rest.content, body: `{"index":${Math.floor(index / 10)}}` } })
    if (index % 3 === 0) await a.store.remove({ id, reason: 'left' })
    if (index % 3 === 1) await a.store.setState({ id, state: 'draining', reason: 'asked' })
  }
  const b = new Peer(server, { namespace: a.namespace, changes: 30 })
  const snapshot = await b.store.open(b)
  t.teardown(() => b.close())
  t.equal(snapshot.changes!.length, 30)
  t.same(snapshot.changes, a.changes.slice(-30))
  t.same(snapshot.agents.map(({ id }) => id).sort(), [...a.agents.keys()].sort())
})

t.test('redis agents: opening a store that changes faster than it is read fails, and the message names the remedy', async t => {
  const [a] = await peers(t, 1, { changes: 1 }) as [Peer]
  const fill = `for i = 1, 30000 do
    redis.call('HSET', KEYS[1], 'old-' .. i, ARGV[1])
    redis.call('HSET', KEYS[2], 'old-' .. i, ARGV[2])
  end`
  const head = JSON.stringify({ registeredAt: 1, created: 1, incarnation: 1, revision: 0, state: 'alive' })
  await server.client.eval(fill, 2, `{ar:${a.namespace}}:heads`, `{ar:${a.namespace}}:agents`, head, '{"type":"t","capabilities":[]}\n{}')
  await a.close()
  const stop = new AbortController()
  const counting = count(`{ar:${a.namespace}}:meta`, stop.signal)
  await t.rejects(Peer.open(server, { namespace: a.namespace }), { message: /increase feed\.ringSize/ })
  stop.abort()
  await counting
})

/** Numbers that do not occur in the stream. */
async function count (key: string, signal: AbortSignal) {
  while (!signal.aborted) await server.client.hincrby(key, 'revision', 1)
}

/** Writes to agents at both ends of the fleet until it is stopped. */
async function write ({ store }: Peer, signal: AbortSignal) {
  for (let index = 0; !signal.aborted; index++) {
    await Promise.all([
      store.register(registration(`new-${index}`)),
      store.remove({ id: `agent-${index}`, reason: 'left' }),
      store.setState({ id: `agent-${1500 + index}`, state: 'draining', reason: 'asked' }),
      store.register(registration(`agent-${2999 - index}`))
    ])
  }
}

t.test('redis agents: agents written while another process loads are not missed', async t => {
  const [a] = await peers(t, 1) as [Peer]
  await Promise.all(Array.from({ length: 3000 }, (_, index) => a.store.register(registration(`agent-${index}`))))
  const writer = new AbortController()
  const writing = write(a, writer.signal)
  const others: Peer[] = []
  for (let count = 0; count < 5; count++) others.push(await Peer.open(server, { namespace: a.namespace }))
  writer.abort()
  await writing
  await eventually('all processes have the same state', () => others.every(({ n }) => n === a.n))
  for (const other of others) t.equal(other.digest, a.digest)
  await Promise.all(others.map(peer => peer.close()))
})

/** Returns a function that creates storages of one new namespace. */
function family (options: Partial<RedisStorageOptions>) {
  const namespace = newNamespace()
  return () => new RedisStorage({
    connection: {
      path: server.path
    },
    namespace,
    leaseMs: 1000,
    retentionMs: 1000,
    commandTimeoutMs: 10_000,
    onError: error => { throw error },
    ...options
  })
}

async function build (settings: ContractSettings) {
  const make = family(settings)
  return { store: make().agents, reopen: async () => make().agents }
}

async function buildWithItsClock ({ leaseMs, retentionMs, preservation }: ContractSettings) {
  const make = family({ leaseMs, retentionMs, preservation })
  return { store: make().agents, reopen: async () => make().agents }
}

function contract (name: string, builder: typeof build, flags: ContractFlags) {
  t.test(name, async t => {
    let count = 0
    storeContract({
      test: (name, run) => {
        count++
        t.test(name, async t => { await t.resolves(run()) })
      },
      build: builder,
      flags
    })
    t.ok(count > 70)
  })
}

contract('redis agent store: passes the agent store contract', build, { persistent: true })
contract(
  'redis agent store: passes the agent store contract on the clock of Redis', buildWithItsClock, { injectedClock: false, persistent: true }
)

async function buildState ({ clock }: StateContractSettings) {
  const make = family({ clock })
  return { store: make().kv, reopen: async () => make().kv, another: async () => make().kv }
}

t.test('redis kv store: passes the key-value contract', async t => {
  let count = 0
  stateContract({
    test: (name, run) => {
      count++
      t.test(name, async t => { await t.resolves(run()) })
    },
    build: buildState,
    flags: { persistent: true, shared: true }
  })
  t.ok(count > 10)
})

const connection = { path: server.path }
const fixed = { connection, leaseMs: 1000, retentionMs: 1000, commandTimeoutMs: 10_000, onError: (error: unknown) => { throw error } }

brokerContract({
  test: (name, run) => t.test(name, async t => { await t.resolves(run()) }),
  async build ({ limits }) {
    const namespace = newNamespace()
    const create = () => new RedisStorage({ ...fixed, namespace, messaging: { limits } }).broker
    return { broker: create(), another: async () => create() }
  },
  flags: { injectedClock: false, shared: true }
})
