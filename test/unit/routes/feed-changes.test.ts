import { request } from 'node:http'
import t from 'tap'
import { Subscribers, type Subscriber } from '../../../src/registry/feed/subscribers.js'
import { FeedPosition } from '../../../src/registry/feed/cursor.js'
import { Feed } from '../../../src/registry/feed/change-log.js'
import type { FeedScope } from '../../../src/registry/feed/delta.js'
import { Registry } from '../../../src/registry/registry.js'
import { MemoryAgentStore } from '../../../src/storage/memory/agent-store.js'
import { answerChecker, build, problemOf, registration, sleep, until, type Answer, type Harness, type Json } from '../../support/harness.js'
import { rules } from '../registry/helper.js'

const answers = answerChecker()

const poll = (registry: Harness, token: string, query: object) =>
  registry.get(`/agents/changes?${Object.entries(query).map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&')}`, { token })
const idsOf = ({ body }: Answer) => body.changes.map((change: Json) => `${change.op} ${change.agent_id}`)

t.test('a first request says where things are, the next what has come since, each change once', async t => {
  const registry = await build(t, {}, answers)
  const token = await registry.join('agent-reader')
  const start = await poll(registry, token, {})
  t.strictSame(start.body, { changes: [], revision: registry.app.agentRegistry.revision })
  t.equal(start.headers.get('cache-control'), 'no-store')
  for (const id of ['agent-a', 'agent-b', 'agent-c']) await registry.join(id)
  await registry.app.agentRegistry.unregister('agent-b')
  const seen: string[] = []
  let since: string = start.body.revision
  while (since !== registry.app.agentRegistry.revision) {
    const page = await poll(registry, token, { since, limit: 2 })
    t.equal(page.body.changes.length, 2)
    t.equal(page.body.changes.at(-1).revision, page.body.revision)
    seen.push(...idsOf(page))
    since = page.body.revision
  }
  t.strictSame(seen, ['put agent-a', 'put agent-b', 'put agent-c', 'remove agent-b'])
  t.strictSame((await poll(registry, token, { since })).body, { changes: [], revision: since })
})

t.test('the list and its revision are a start that continues without a gap', async t => {
  const registry = await build(t)
  const token = await registry.join('agent-a')
  const list = await registry.get('/agents', { token })
  await registry.join('agent-b')
  const next = await poll(registry, token, { since: list.headers.get('x-registry-revision')! })
  t.strictSame(list.body.map((agent: Json) => agent.agent_id), ['agent-a'])
  t.strictSame(idsOf(next), ['put agent-b'])
})

t.test('a poll waits for a change that it wants, and its revision moves on over the others', async t => {
  const registry = await build(t, {}, answers)
  const token = await registry.join('agent-reader')
  const since = registry.app.agentRegistry.revision
  const started = performance.now()
  const waiting = poll(registry, token, { since, wait: 20, agent_type: 'security', capabilities: 'cap one', status: 'alive' })
  await sleep(200)
  await registry.join('agent-a')
  await registry.join('agent-b', { agent_type: 'security' })
  const answer = await waiting
  t.strictSame(idsOf(answer), ['put agent-b'])
  t.equal(answer.body.revision, registry.app.agentRegistry.revision)
  t.ok(performance.now() - started < 15_000)
  const [idle] = [poll(registry, token, { since: answer.body.revision, wait: 1, agent_type: 'security' }), await sleep(100)]
  await registry.join('agent-c')
  t.strictSame((await idle).body, { changes: [], revision: registry.app.agentRegistry.revision })
})

t.test('what cannot be continued is told so at once, also to a poll that waits', async t => {
  const store = Object.assign(new MemoryAgentStore({ leaseMs: 60_000, retentionMs: 60_000 }), {})
  const registry = await build(t, { store, feed: { ringSize: 3 } }, answers)
  const token = await registry.join('agent-0')
  for (let i = 1; i < 9; i++) await registry.join(`agent-${i}`)
  const epoch = registry.app.agentRegistry.revision.split(':')[0]
  for (const since of [`${epoch}:1`, `${epoch}:10`, 'other:9', 'incomplete']) {
    t.strictSame((await poll(registry, token, { since, wait: 30 })).body, { changes: [], revision: registry.app.agentRegistry.revision, resync: true }, since)
  }
  const waiting = poll(registry, token, { since: registry.app.agentRegistry.revision, wait: 20, agent_type: 'security' })
  await sleep(100)
  await Promise.all(Array.from({ length: 9 }, (_, i) => registry.join(`agent-1${i}`)))
  t.match((await waiting).body, { changes: [], resync: true })
  for (const wrong of [{ wait: 31 }, { wait: -1 }, { wait: 'x' }, { limit: 0 }, { limit: 501 }, { since: '' }]) {
    t.equal(problemOf(t, await poll(registry, token, wrong)), 'validation-failed', JSON.stringify(wrong))
  }
})

t.test('polls that began together do not end together', async t => {
  const registry = await build(t)
  const token = await registry.join()
  const since = registry.app.agentRegistry.revision
  const ends = await Promise.all(Array.from({ length: 60 }, async () => {
    const started = performance.now()
    await poll(registry, token, { since, wait: 3 })
    return performance.now() - started
  }))
  t.ok(Math.min(...ends) >= 2_650, `the first after ${Math.min(...ends)} ms`)
  t.ok(Math.max(...ends) < 12_000, `the last after ${Math.max(...ends)} ms`)
  t.ok(Math.max(...ends) - Math.min(...ends) > 300, 'of ±300 ms')
})

t.test('a poll ends with the right to read, and one that is hung up on leaves nothing behind', async t => {
  const registry = await build(t, { feed: { maxStreams: 1 } })
  const token = await registry.join('agent-one')
  const since = registry.app.agentRegistry.revision
  const gone = request(`${registry.base}/agents/changes?wait=20&since=${since}`, { headers: { authorization: `Bearer ${token}` } })
  gone.on('error', () => {}).end()
  await until(async () => (await poll(registry, token, { since, wait: 0.01 })).status === 503)
  gone.destroy()
  await until(async () => (await poll(registry, token, { since, wait: 0.01 })).status === 200)
  const waiting = poll(registry, token, { since, wait: 20, agent_type: 'security' })
  await sleep(100)
  await registry.join('agent-one')
  const answer = await waiting
  t.equal(problemOf(t, answer), 'token-invalid')
  t.match(answer.body.detail, /newer instance/)
})

t.test('one change is looked at once for all who see the same, and wakes nobody who waits for another', async t => {
  const store = new MemoryAgentStore({ leaseMs: 60_000, retentionMs: 60_000 })
  const registry = new Registry({ ...rules, store, leaseMs: 60_000, cleanupIntervalMs: 60_000, maxAgents: 100, ringSize: 100, hookTimeoutMs: 1000, hiddenFields: [], onError: error => { throw error } })
  await registry.open()
  t.teardown(() => registry.close())
  const feed = new Feed(registry)
  const subscribers = new Subscribers({ feed, bookmarkIntervalMs: 30_000, now: () => 0 })
  t.teardown(() => subscribers.close())
  registry.on('change', () => subscribers.changed())
  const woken: string[] = []
  const looked: FeedScope[] = []
  const showsAny = feed.deltas.showsAny.bind(feed.deltas)
  feed.deltas.showsAny = (scope, changes) => {
    looked.push(scope)
    return showsAny(scope, changes)
  }
  for (let i = 0; i < 1000; i++) {
    const position = new FeedPosition({ feed, scope: { view: 'full', filter: { capabilities: [i % 2 ? 'cap odd' : 'cap even'] } }, position: 0 })
    const subscriber: Subscriber = { position, pump () { woken.push(position.revision); subscribers.park(subscriber) } }
    subscribers.add(subscriber)
    subscribers.park(subscriber)
  }
  t.equal(subscribers.size, 1000)
  await registry.register(registry.parse(registration('agent-one')), { kind: 'owner' }, null)
  await new Promise(setImmediate)
  t.strictSame([looked.length, woken.length], [2, 0])
  await registry.register(registry.parse(registration('agent-two', { capabilities: ['cap odd'] })), { kind: 'owner' }, null)
  await new Promise(setImmediate)
  t.strictSame([looked.length, woken.length], [4, 500])
  t.ok(woken.every(revision => revision.endsWith(':1')), 'from where nothing was for them')
})

t.test('every answer was what its schema says', async t => { t.same(answers.findings, []) })
