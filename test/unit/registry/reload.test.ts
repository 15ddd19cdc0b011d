import { Value } from '@sinclair/typebox/value'
import 'fast-check'
import t, { type Test } from 'tap'
import { perMillisecondCache, VersionedCache } from '../../../src/registry/query.js'
import { Rendering } from '../../../src/registry/render.js'
import { AgentInfo, hideableFields } from '../../../src/protocol/schemas/agent.js'
import type { StoreListener, StoreSnapshot } from '../../../src/storage/agent-store.js'
import { MemoryAgentStore } from '../../../src/storage/memory/agent-store.js'
import { build, type Harness, registration } from '../../support/harness.js'
import { parse, record } from './helper.js'

/** A store whose changes from other processes the test emits. */
class EmittingStore extends MemoryAgentStore {
  listener!: StoreListener

  override async open (listener: StoreListener): Promise<StoreSnapshot> {
    this.listener = listener
    return super.open(listener)
  }
}

async function open (t: Test): Promise<{ registry: Harness, store: EmittingStore }> {
  const store = new EmittingStore({ leaseMs: 60_000, retentionMs: 60_000 })
  return { store, registry: await build(t, { storage: { agents: store } }) }
}

const idsOfRegistry = ({ app }: Harness) => app.agentRegistry.list().map(agent => agent.agent_id).sort()

t.test('replica reload: it replaces records, lists, counts and digest', async t => {
  const { registry, store } = await open(t)
  await registry.app.agentRegistry.register(registration('agent-gone'))
  const agents = [record('agent-new', { revision: 7 }), record('agent-late', { revision: 8, created: 2, state: 'dead' })]
  store.listener.reloaded({ epoch: 'other', revision: 9, agents })
  t.same(idsOfRegistry(registry), ['agent-late', 'agent-new'])
  t.match(registry.app.agentRegistry.stats(), { total_agents: 2, alive_agents: 1, dead_agents: 1 })
  t.equal(registry.app.agentRegistry.revision, 'other:9')
  t.match((await registry.get('/public/discover')).body, [{ agent_id: 'agent-new', revision: 'other:7' }])
  const found = await registry.app.agentRegistry.search({ query: 'agent used in tests' })
  t.same(found.map(({ id }) => id), ['agent-new'])
})

t.test('replica reload: watchers get a resync when the epoch differs, also when numbers fit', async t => {
  const { registry, store } = await open(t)
  await registry.app.agentRegistry.register(registration('agent-one'))
  const watcher = await registry.watcher()
  watcher.send({ type: 'watch', requestId: 'r' })
  await watcher.next('ack')
  store.listener.reloaded({ epoch: 'other', revision: 2, agents: [record('agent-two', { revision: 1 })] })
  t.match(await watcher.next('resync'), { revision: 'other:2' })
  t.match(await watcher.next('agents_snapshot'), { agents: [{ agent_id: 'agent-two' }], last: true })
})

t.test('replica reload: watchers continue when the epoch is the same and their changes are retained', async t => {
  const { registry, store } = await open(t)
  await registry.app.agentRegistry.register(registration('agent-one'))
  const [epoch, n] = registry.app.agentRegistry.revision.split(':') as [string, string]
  const watcher = await registry.watcher()
  watcher.send({ type: 'watch', requestId: 'r' })
  await watcher.next('ack')
  const after = record('agent-two', { revision: Number(n) + 1 })
  const change = { n: after.revision, event: 'registered' as const, id: after.id, before: null, after, reason: 'created' }
  store.listener.reloaded({ epoch, revision: after.revision, agents: [record('agent-one'), after], changes: [change] })
  t.match(await watcher.next('agents_delta'), { changes: [{ op: 'put', agent_id: 'agent-two' }] })
})

t.test('replica reload: it is logged, as an error where writes were lost', async t => {
  const lines: string[] = []
  const store = new EmittingStore({ leaseMs: 60_000, retentionMs: 60_000 })
  const logger = { level: 'warn', stream: { write: (line: string) => { lines.push(line) } } }
  const registry = await build(t, { storage: { agents: store } }, { server: { logger } })
  const [epoch] = registry.app.agentRegistry.revision.split(':') as [string]
  store.listener.reloaded({ epoch, revision: 3, agents: [record('agent-one', { revision: 3 })] })
  store.listener.reloaded({ epoch: 'other', revision: 1, agents: [] })
  const received = lines.map(line => JSON.parse(line)).filter(({ source }) => source === 'storage')
  t.match(received, [
    { level: 40, msg: /^The store was reloaded/, epoch, agents: 1, differences: 1 },
    { level: 50, msg: /^The store has lost writes: a new epoch begins/, previousEpoch: epoch, epoch: 'other', agents: 0, differences: 1 }
  ])
})

t.test('replica reload: sockets of replaced instances are closed', async t => {
  const { registry, store } = await open(t)
  const agent = await registry.agentSocket(await registry.agent('agent-one'))
  const [epoch] = registry.app.agentRegistry.revision.split(':') as [string]
  const incarnation = registry.app.agentRegistry.get('agent-one')!.incarnation! + 1
  store.listener.reloaded({ epoch, revision: 90, agents: [record('agent-one', { incarnation, revision: 90 })] })
  t.match(await agent.closed, { code: 4009 })
})

t.test('replica: heartbeats from another process are shown unless they belong to another revision', async t => {
  const { registry, store } = await open(t)
  await registry.app.agentRegistry.register(registration('agent-one'))
  const lastSeen = Date.UTC(2030, 0, 1)
  const { revision } = registry.app.agentRegistry.get('agent-one')!
  const n = Number(revision!.split(':')[1])
  store.listener.touched([record('agent-one', {
    revision: n +
    1,
    lastSeen: 5
  }), record('agent-one', { revision: n, lastSeen }), record('agent-never')])
  t.equal(registry.app.agentRegistry.get('agent-one')!.last_seen, '2030-01-01T00:00:00.000Z')
  t.same(idsOfRegistry(registry), ['agent-one'])
})

const rich = {
  features: ['f'],
  max_tokens: 5,
  language_support: ['en'],
  rate_limit: 5,
  requirements: { permissions: ['net'] },
  policy_tags: ['internal'],
  ai_context: 'how'
}
const { body } = parse(rich)
const agent = record('agent-one', {
  body, revision: 7, incarnation: 3, registeredAt: Date.UTC(2030, 0, 31, 12), lastSeen: Date.UTC(2030, 0, 31, 12, 0, 1, 5), state: 'suspect'
})

t.test('render: an agent has its registered members and those of the registry', async t => {
  const info = new Rendering(agent, 'e', []).info()
  t.same([...Value.Errors(AgentInfo, info)], [])
  t.match(info, {
    ...registration('agent-one', rich),
    registered_at: '2030-01-31T12:00:00.000Z',
    revision: 'e:7',
    incarnation: 3,
    status: 'alive',
    state: 'suspect',
    last_seen: '2030-01-31T12:00:01.005Z',
    similarity: null,
    metrics: { agent_id: 'agent-one', total_requests: 0, last_active: '2030-01-31T12:00:00.000Z' }
  })
  t.strictSame(Object.keys(info), Object.keys(AgentInfo.properties))
})

t.test('render: a dead agent has the status of existing clients', async t => {
  t.match(new Rendering({ ...agent, state: 'dead' }, 'e', []).info(), { status: 'dead', state: 'dead' })
})

t.test('render: metrics are null unless requested', async t => {
  const rendering = new Rendering(agent, 'e', [])
  t.equal(JSON.parse(rendering.full(false)).metrics, null)
  t.equal(JSON.parse(rendering.public(false)!).metrics, null)
  t.match(JSON.parse(rendering.full()).metrics, { agent_id: 'agent-one' })
})

t.test('render: without hidden fields the public sees all that agents see', async t => {
  const rendering = new Rendering(agent, 'e', [])
  t.equal(rendering.public(), rendering.full())
})

t.test('render: publicly hidden fields are present and empty', async t => {
  const rendering = new Rendering(agent, 'e', hideableFields)
  const shown = JSON.parse(rendering.public()!)
  t.match(shown, {
    features: [],
    policy_tags: [],
    max_tokens: null,
    language_support: null,
    rate_limit: null,
    requirements: null,
    ai_context: null,
    metrics: null
  })
  t.match(shown, registration())
  t.strictSame(Object.keys(shown), Object.keys(AgentInfo.properties))
  t.same([...Value.Errors(AgentInfo, shown)], [])
  t.match(rendering.info(), { features: ['f'], ai_context: 'how', requirements: { permissions: ['net'] } })
  t.equal(rendering.public(), rendering.public())
})

t.test('render: a public view replaces the registration publicly', async t => {
  const publicBody = parse({ ...rich, name: 'Public name', owner: 'public' }).body
  const rendering = new Rendering({ ...agent, publicBody }, 'e', ['ai_context'])
  t.match(JSON.parse(rendering.public()!), { name: 'Public name', owner: 'public', ai_context: null, max_tokens: 5, revision: 'e:7' })
  t.match(rendering.info(), { name: 'Agent One', ai_context: 'how' })
  t.equal(new Rendering({ ...agent, publicBody: null }, 'e', []).public(), null)
})

t.test('page cache: a text is built once until the next change', async t => {
  const replica = { version: 1 }
  const pages = new VersionedCache(replica, 2)
  let made = 0
  const make = () => `text ${++made}`
  t.equal(pages.get('a', make), 'text 1')
  t.equal(pages.get('a', make), 'text 1')
  t.equal(pages.get('b', make), 'text 2')
  t.equal(pages.get('c', make), 'text 3', 'texts beyond the limit are rebuilt each time')
  t.equal(pages.get('c', make), 'text 4')
  replica.version++
  t.equal(pages.get('a', make), 'text 5')
  t.equal(pages.get('c', make), 'text 6', 'stale texts are evicted')
  t.equal(pages.get('c', make), 'text 6')
})

t.test('per-millisecond cache: a text is rebuilt after a change or a millisecond later', async t => {
  const replica = { version: 1 }
  let made = 0
  const text = perMillisecondCache(replica, () => `text ${++made} of ${replica.version}`)
  const start = Date.now()
  const first = text()
  // It can only be the same within one millisecond.
  const again = text()
  if (Date.now() === start) t.equal(again, first)
  replica.version = 2
  t.match(text(), 'of 2')
  const before = made
  const last = Date.now()
  while (Date.now() === last) { /* the next millisecond */ }
  text()
  t.equal(made, before + 1)
})
