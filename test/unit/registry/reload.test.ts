import t, { type Test } from 'tap'
import { MemoryAgentStore } from '../../../src/storage/memory/agent-store.js'
import type { StoreListener, StoreSnapshot } from '../../../src/storage/agent-store.js'
import { build, registration, type Harness } from '../../support/harness.js'
import { record } from './helper.js'

/** A store of which other processes could tell: what is told is said by the test. */
class TellingStore extends MemoryAgentStore {
  listener!: StoreListener

  override async open (listener: StoreListener): Promise<StoreSnapshot> {
    this.listener = listener
    return super.open(listener)
  }
}

async function open (t: Test): Promise<{ registry: Harness, store: TellingStore }> {
  const store = new TellingStore({ leaseMs: 60_000, retentionMs: 60_000 })
  return { store, registry: await build(t, { store }) }
}

const idsOf = ({ app }: Harness) => app.agentRegistry.list().map(agent => agent.agent_id).sort()

t.test('a reload takes the place of everything, lists, counts and digest too', async t => {
  const { registry, store } = await open(t)
  await registry.app.agentRegistry.register(registration('agent-gone'))
  const agents = [record('agent-new', { revision: 7 }), record('agent-late', { revision: 8, created: 2, state: 'dead' })]
  store.listener.reloaded({ epoch: 'other', revision: 9, agents })
  t.same(idsOf(registry), ['agent-late', 'agent-new'])
  t.match(registry.app.agentRegistry.stats(), { total_agents: 2, alive_agents: 1, dead_agents: 1 })
  t.equal(registry.app.agentRegistry.revision, 'other:9')
  t.match((await registry.get('/public/discover')).body, [{ agent_id: 'agent-new', revision: 'other:7' }])
  const found = await registry.app.agentRegistry.search({ query: 'agent used in tests' })
  t.same(found.map(({ id }) => id), ['agent-new'])
})

t.test('watchers are told resync when the epoch is another, also where the numbers would fit', async t => {
  const { registry, store } = await open(t)
  await registry.app.agentRegistry.register(registration('agent-one'))
  const watcher = await registry.watcher()
  watcher.send({ type: 'watch', requestId: 'r' })
  await watcher.next('ack')
  store.listener.reloaded({ epoch: 'other', revision: 2, agents: [record('agent-two', { revision: 1 })] })
  t.match(await watcher.next('resync'), { revision: 'other:2' })
  t.match(await watcher.next('agents_snapshot'), { agents: [{ agent_id: 'agent-two' }], last: true })
})

t.test('watchers go on after a reload of the same epoch that still has what they missed', async t => {
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

t.test('a reload is said in the log, loudly where writes were lost', async t => {
  const lines: string[] = []
  const store = new TellingStore({ leaseMs: 60_000, retentionMs: 60_000 })
  const logger = { level: 'warn', stream: { write: (line: string) => { lines.push(line) } } }
  const registry = await build(t, { store }, { server: { logger } })
  const [epoch] = registry.app.agentRegistry.revision.split(':') as [string]
  store.listener.reloaded({ epoch, revision: 3, agents: [record('agent-one', { revision: 3 })] })
  store.listener.reloaded({ epoch: 'other', revision: 1, agents: [] })
  const told = lines.map(line => JSON.parse(line)).filter(({ source }) => source === 'storage')
  t.match(told, [
    { level: 40, msg: /^The store was reloaded/, epoch, agents: 1, differences: 1 },
    { level: 50, msg: /^The store has lost writes: a new epoch begins/, previousEpoch: epoch, epoch: 'other', agents: 0, differences: 1 }
  ])
})

t.test('sockets of an instance that a reload shows to be replaced are closed', async t => {
  const { registry, store } = await open(t)
  const agent = await registry.agentSocket(await registry.agent('agent-one'))
  const [epoch] = registry.app.agentRegistry.revision.split(':') as [string]
  const incarnation = registry.app.agentRegistry.get('agent-one')!.incarnation! + 1
  store.listener.reloaded({ epoch, revision: 90, agents: [record('agent-one', { incarnation, revision: 90 })] })
  t.match(await agent.closed, { code: 4009 })
})

t.test('signs of life that another process took in are shown, those of another revision are not', async t => {
  const { registry, store } = await open(t)
  await registry.app.agentRegistry.register(registration('agent-one'))
  const lastSeen = Date.UTC(2030, 0, 1)
  const { revision } = registry.app.agentRegistry.get('agent-one')!
  const n = Number(revision!.split(':')[1])
  store.listener.touched([record('agent-one', { revision: n + 1, lastSeen: 5 }), record('agent-one', { revision: n, lastSeen }), record('agent-never')])
  t.equal(registry.app.agentRegistry.get('agent-one')!.last_seen, '2030-01-01T00:00:00.000Z')
  t.same(idsOf(registry), ['agent-one'])
})
