import { createHash } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { Digest, recordDigest, Replica } from '../../../src/registry/replica.js'
import { ChangeLog } from '../../../src/registry/feed/change-log.js'
import { DeltaRenderer, type FeedScope, scopeKey } from '../../../src/registry/feed/delta.js'
import { type AgentFilter, count, matches, select, slice } from '../../../src/registry/query.js'
import { type View } from '../../../src/registry/render.js'
import { AgentInfo, isDiscoverable, statusOf } from '../../../src/protocol/schemas/agent.js'
import { stateNames } from '../../../src/protocol/schemas/common.js'
import type { AgentRecord, Change } from '../../../src/storage/agent-store.js'
import { registration } from '../../support/harness.js'
import { Model, parse, record, type Step, steps } from './helper.js'
import { seed } from '../../support/lengths.js'

const filters = fc.record<AgentFilter>({
  agent_type: fc.constantFrom(undefined, 'testing', 'Security', 'none'),
  capabilities: fc.constantFrom(undefined, ['one'], ['one', 'two'], ['three', 'two', 'one'], ['four']),
  status: fc.constantFrom(undefined, 'alive', 'dead')
})
const views = fc.constantFrom<View>('full', 'public')

function follow (random: readonly Step[]) {
  const model = new Model()
  const replica = new Replica()
  replica.load({ epoch: 'epoch', revision: 0, agents: [] })
  const changes = random.map(step => model.change(step)).filter(change => change !== null)
  for (const change of changes) replica.apply(change)
  return { model, replica, changes }
}

const isShown = (view: View, { state, publicBody }: AgentRecord) =>
  view === 'full' || (!['dead', 'draining', 'maintenance'].includes(state) && publicBody !== null)

/** Result of a full scan of the records, in registration order. */
function naive (model: Model, view: View, { agent_type: type, capabilities = [], status }: AgentFilter): string[] {
  return [...model.agents.values()]
    .filter(agent => isShown(view, agent) && (!type || agent.type.toLowerCase() === type.toLowerCase()) &&
      (!status || (agent.state === 'dead') === (status === 'dead')))
    .filter(agent => capabilities.every(capability => agent.capabilities.includes(capability)))
    .sort((a, b) => a.created - b.created).map(({ id }) => id)
}

const idsOf = (entries: Iterable<{ record: AgentRecord }>) => Array.from(entries, ({ record }) => record.id)
const same = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b)

t.test(`replica: its indexes find the same agents as a full scan (TEST_SEED=${seed})`, async t => {
  t.doesNotThrow(() => fc.assert(fc.property(steps, filters, views, fc.nat(4), fc.nat(4), (random, filter, view, offset, limit) => {
    const { model, replica } = follow(random)
    const expected = naive(model, view, filter)
    const found = idsOf(select(replica, view, filter))
    return same([...found].sort(), [...expected].sort()) && count(replica, view, filter) === expected.length &&
      same(idsOf(slice(replica, view, filter, { offset, limit })), found.slice(offset, offset + limit))
  }), { numRuns: 500 }))
})

t.test(`replica: agents are ordered by first registration, and newest first in reverse (TEST_SEED=${seed})`, async t => {
  t.doesNotThrow(() => fc.assert(fc.property(steps, random => {
    const { model, replica } = follow(random)
    const expected = naive(model, 'full', {})
    return same(idsOf(replica.entries), expected) && same(idsOf(select(replica, 'full', {})), expected) &&
      same(idsOf(replica.newest()), expected.toReversed())
  })))
})

t.test(`replica: counts and digest equal those computed from all records (TEST_SEED=${seed})`, async t => {
  t.doesNotThrow(() => fc.assert(fc.property(steps, random => {
    const { model, replica } = follow(random)
    const agents = [...model.agents.values()]
    const digest = new Digest()
    for (const agent of agents.toReversed()) digest.add(recordDigest('epoch', agent))
    const types = Object.values(replica.countTypes()).reduce((sum, count) => sum + count, 0)
    return replica.size === agents.length && replica.deadCount === agents.filter(({ state }) => state === 'dead').length &&
      replica.digest === digest.toString() && types === agents.length && replica.revision === model.n &&
      replica.discoverable.size === naive(model, 'public', {}).length
  })))
})

t.test(`replica: a loaded replica equals one that applied every change (TEST_SEED=${seed})`, async t => {
  t.doesNotThrow(() => fc.assert(fc.property(steps, filters, (random, filter) => {
    const { model, replica } = follow(random)
    const loaded = new Replica()
    loaded.load({ epoch: 'epoch', revision: model.n, agents: [...model.agents.values()].reverse() })
    return loaded.digest === replica.digest && loaded.revision === replica.revision && same(
      idsOf(loaded.entries), idsOf(replica.entries)
    ) &&
      same(idsOf(select(loaded, 'public', filter)).sort(), idsOf(select(replica, 'public', filter)).sort())
  })))
})

t.test('replica: the digest is the sum of the first eight bytes of SHA-256 of id, revision and state', async t => {
  const parts = [['agent-one', 7, 'alive'], ['agent-two', 8, 'dead']] as const
  const sum = parts.reduce((sum, [id, n, state]) =>
    sum + BigInt(`0x${createHash('sha256').update(`${id}\0e:${n}\0${state}`).digest('hex').slice(0, 16)}`), 0n) % 2n ** 64n
  const digest = new Digest()
  t.equal(digest.toString(), '0000000000000000')
  for (const [id, revision, state] of parts) digest.add(recordDigest('e', { id, revision, state }))
  t.equal(BigInt(`0x${digest}`), sum)
  for (const [id, revision, state] of parts) digest.remove(recordDigest('e', { id, revision, state }))
  t.equal(digest.toString(), '0000000000000000')
})

t.test('replica: the newest agents are right after many additions and removals', async t => {
  const replica = new Replica()
  replica.load({ epoch: 'e', revision: 0, agents: [] })
  let n = 0
  const apply = (id: string, before: AgentRecord | null, after: AgentRecord | null) =>
    replica.apply({ n: ++n, event: 'state', id, before, after, reason: 'x' })
  for (let index = 0; index < 500; index++) {
    const agent = record(`agent-${index}`, { created: index })
    apply(agent.id, null, agent)
    if (index >= 3) apply(`agent-${index - 3}`, agent, null)
  }
  t.same(idsOf(replica.newest()), ['agent-499', 'agent-498', 'agent-497'])
  apply('agent-1', record('agent-1'), null)
  t.equal(replica.size, 3, 'a missing agent is not removed twice')
})

t.test('replica: an agent keeps its position when its registration changes', async t => {
  const { replica } = follow(['agent-a', 'agent-b', 'agent-a'].map(
    (id, index) => ({ kind: 'put', id, type: 'testing', capabilities: [`cap ${index}`], state: 'alive', hidden: false })
  ))
  t.same(idsOf(select(replica, 'public', {})), ['agent-a', 'agent-b'])
  t.same([replica.withCapability('cap 0').size, replica.withCapability('cap 2').size], [0, 1])
})

t.test('replica: a newer heartbeat is applied if it belongs to the current record', async t => {
  const replica = new Replica()
  const agent = record('agent-a', { revision: 4 })
  replica.load({ epoch: 'e', revision: 4, agents: [agent] })
  const { digest } = replica
  const seen = () => replica.get('agent-a')!.rendering.info().last_seen
  replica.touch({ ...agent, lastSeen: 9000 })
  t.equal(seen(), '1970-01-01T00:00:09.000Z')
  replica.touch({ ...agent, lastSeen: 10_000, revision: 3 })
  replica.touch({ ...agent, id: 'agent-z' })
  t.equal(seen(), '1970-01-01T00:00:09.000Z')
  t.equal(replica.digest, digest)
})

t.test('replica: a type is counted under the spelling of its first agent', async t => {
  const replica = new Replica()
  replica.load({
    epoch: 'e',
    revision: 2,
    agents: [record(
      'agent-a', { type: 'TESTING' }
    ), record('agent-b', { type: 'testing', created: 2 }), record('agent-c', { type: 'other', created: 3, state: 'dead' })]
  })
  t.strictSame(replica.countTypes(), { TESTING: 2, other: 1 })
})

t.test('replica: only discoverable agents are listed, and status has two values', async t => {
  t.same(stateNames.filter(isDiscoverable), ['starting', 'alive', 'suspect'])
  t.same(stateNames.map(statusOf), ['alive', 'alive', 'alive', 'dead', 'alive', 'alive'])
})

t.test('replica: a filter applies all of its members', async t => {
  const agent = record('agent-a', { capabilities: ['one', 'two'] })
  t.ok(matches('full', agent, {}))
  t.ok(matches('full', agent, { agent_type: 'TESTING', capabilities: ['two', 'one'], status: 'alive' }))
  t.notOk(matches('full', agent, { capabilities: ['one', 'three'] }))
  t.notOk(matches('full', agent, { capabilities: ['ONE'] }))
  t.notOk(matches('full', agent, { status: 'dead' }))
})

t.test(`change log: it holds the newest changes and knows its range (TEST_SEED=${seed})`, async t => {
  t.doesNotThrow(() => fc.assert(fc.property(fc.integer(
    { min: 1, max: 20 }
  ), fc.nat(60), fc.nat(100), fc.integer({ min: 1, max: 10 }), (size, pushed, newest, limit) => {
    const log = new ChangeLog(size)
    log.reset(newest)
    const all: Change[] = Array.from({ length: pushed }, (_, index) => ({
      n: newest + index +
      1,
      event: 'state',
      id: 'x',
      before: null,
      after: null,
      reason: 'x'
    }))
    for (const change of all) log.push(change)
    const last = newest + pushed
    for (let n = newest - 2; n <= last + 2; n++) {
      const expected = n <= last && n >= last - Math.min(size, pushed)
      if (log.has(n) !== expected) return false
      if (expected && !same(log.after(n, limit), all.filter(change => change.n > n).slice(0, limit))) return false
    }
    return log.newest === last
  })))
})

const scopes: FeedScope[] = [
  { view: 'full', filter: {} },
  { view: 'public', filter: {} },
  { view: 'full', filter: { status: 'alive' } },
  { view: 'full', filter: { agent_type: 'Security', capabilities: ['one'] } },
  { view: 'public', filter: { capabilities: ['one', 'two'] } }
]

interface FeedChange {
  revision: string
  op: string
  agent_id: string
  agent?: AgentInfo
  state?: string
  previous?: string
  reason: string
}

t.test(`feed: a subscriber of a scope ends with the agents that the scope finds (TEST_SEED=${seed})`, async t => {
  t.doesNotThrow(() => fc.assert(fc.property(steps, fc.constantFrom(...scopes), (random, scope) => {
    const { model, replica, changes } = follow(random)
    const feed = new DeltaRenderer(replica)
    const known = new Map<string, string | undefined>()
    const { deltas, to } = feed.batch(scope, 0, changes)
    for (const { json } of deltas) {
      const { op, agent_id: id, state, agent } = JSON.parse(json) as FeedChange
      if (op === 'put' ? agent!.agent_id !== id || agent!.state !== state : known.has(id) === false) return false
      if (op === 'remove') known.delete(id)
      else known.set(id, state)
    }
    const expected = naive(model, scope.view, scope.filter)
    return to === (changes.at(-1)?.n ?? 0) && same([...known].sort(), expected.map(id => [id, model.agents.get(id)!.state]).sort())
  }), { numRuns: 500 }))
})

function feedOf (...agents: AgentRecord[]) {
  const replica = new Replica()
  replica.load({ epoch: 'e', revision: 1, agents })
  return new DeltaRenderer(replica)
}

t.test('feed: a change is classified by its effect for the subscriber', async t => {
  const alive = record('agent-a', { revision: 1 })
  const draining = { ...alive, state: 'draining' as const, revision: 2 }
  const other = { ...alive, type: 'other', revision: 2 }
  const hidden = { ...alive, publicBody: null }
  const full = (filter: AgentFilter = {}): FeedScope => ({ view: 'full', filter })
  const open = (filter: AgentFilter = {}): FeedScope => ({ view: 'public', filter })
  const rows: Array<[name: string, FeedScope, Change['event'], AgentRecord | null, AgentRecord | null, op: string | null]> = [
    ['new', full(), 'registered', null, alive, 'put'],
    ['replaced', full(), 'registered', alive, { ...alive, revision: 2 }, 'put'],
    ['changed', full(), 'updated', alive, other, 'put'],
    ['another state', full(), 'state', alive, draining, 'state'],
    ['gone', full(), 'unregistered', alive, null, 'remove'],
    ['drains, publicly', open(), 'state', alive, draining, 'remove'],
    ['restored, publicly', open(), 'alive', draining, { ...alive, revision: 3 }, 'put'],
    ['removed while draining, publicly', open(), 'unregistered', draining, null, null],
    ['hidden', open(), 'registered', null, hidden, null],
    ['hidden from now on', open(), 'updated', alive, hidden, 'remove'],
    ['leaves a filter', full({ agent_type: 'testing' }), 'updated', alive, other, 'remove'],
    ['enters a filter', full({ agent_type: 'other' }), 'updated', alive, other, 'put'],
    ['outside a filter', full({ agent_type: 'none' }), 'updated', alive, other, null],
    ['dies under a filter of live agents', full({ status: 'alive' }), 'dead', alive, { ...alive, state: 'dead', revision: 2 }, 'remove']
  ]
  for (const [name, scope, event, before, after, op] of rows) {
    const change = { n: 9, event, id: 'agent-a', before, after, reason: 'why' }
    const received = feedOf(alive).render(scope, change)
    if (op === null) {
      t.equal(received, null, name)
      continue
    }
    t.equal(received!.op, op, name)
    const { agent, ...rest } = JSON.parse(received!.json) as FeedChange
    t.strictSame(rest, {
      revision: 'e:9',
      op,
      agent_id: 'agent-a',
      ...(op !== 'remove' &&
      { state: after!.state }),
      ...(before && { previous: before.state }),
      reason: 'why'
    }, name)
    t.equal(agent?.agent_id, op === 'put' ? 'agent-a' : undefined, name)
  }
})

t.test('feed: subscribers of one scope share one text, and other scopes see only their agents', async t => {
  const { body } = parse({ name: 'Public name' })
  const agent = record('agent-a', { publicBody: body })
  const feed = feedOf(agent)
  const change: Change = { n: 1, event: 'registered', id: agent.id, before: null, after: agent, reason: 'created' }
  const full = feed.render({ view: 'full', filter: {} }, change)
  t.equal(feed.render({ view: 'full', filter: { status: 'alive' } }, change), full)
  t.match(JSON.parse(feed.render({ view: 'public', filter: {} }, change)!.json).agent, { name: 'Public name' })
  t.match(JSON.parse(full!.json).agent, { name: registration().name })
  t.equal(scopeKey({ view: 'full', filter: { agent_type: 'TESTING' } }), scopeKey({ view: 'full', filter: { agent_type: 'testing' } }))
  t.equal(new Set(scopes.map(scopeKey)).size, scopes.length)
})

t.test('feed: a batch is cut by bytes, never to nothing, and states its end', async t => {
  const { body } = parse({ metadata: { big: Array(1).fill('x'.repeat(100_000)) } })
  const changes = Array.from({ length: 9 }, (_, index): Change => ({
    n: index +
    1,
    event: 'registered',
    id: 'agent-one',
    before: null,
    after: record('agent-one', { body, revision: index + 1 }),
    reason: 'created'
  }))
  const feed = feedOf()
  const scope: FeedScope = { view: 'full', filter: {} }
  const first = feed.batch(scope, 0, changes)
  t.equal(first.to, first.deltas.length)
  t.ok(first.to > 1 && first.to < 9)
  t.equal(feed.batch(scope, first.to, changes.slice(first.to)).to, 9)
  const huge = [{
    ...changes[0]!,
    after: record(
      'agent-one', { body: parse({ metadata: { big: ['x'.repeat(600_000)] } }, { maxRecordBytes: 1e6 }).body }
    )
  }]
  t.equal(feed.batch(scope, 0, huge).deltas.length, 1)
  t.same(feed.batch({ view: 'full', filter: { agent_type: 'none' } }, 0, changes), { deltas: [], to: 9 })
  t.same(feed.batch(scope, 5, []), { deltas: [], to: 5 })
})
