import { request } from 'node:http'
import { connect } from 'node:net'
import t from 'tap'
import { type FeedSubscriber, FeedSubscribers } from '../../../src/registry/feed/subscribers.js'
import { FeedPosition } from '../../../src/registry/feed/cursor.js'
import { Feed } from '../../../src/registry/feed/change-log.js'
import type { FeedScope } from '../../../src/registry/feed/delta.js'
import { Registry } from '../../../src/registry/registry.js'
import { MemoryAgentStore } from '../../../src/storage/memory/agent-store.js'
import { type Answer, answerChecker, build, type Harness, type Json, problemOf, registration, sleep, until } from '../../support/harness.js'
import { rules } from '../registry/helper.js'
import { answerOf, events, type SentEvent, textOf } from './feed-helper.js'

const answers = answerChecker()

const poll = (registry: Harness, token: string, query: object) =>
  registry.get(
    `/agents/changes?${Object.entries(query).map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&')}`, { token }
  )
const idsOf = ({ body }: Answer) => body.changes.map((change: Json) => `${change.op} ${change.agent_id}`)

t.test('changes: the first request returns a position, and the next one each change since, once', async t => {
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

t.test('changes: a list and its revision are a start without a gap', async t => {
  const registry = await build(t)
  const token = await registry.join('agent-a')
  const list = await registry.get('/agents', { token })
  await registry.join('agent-b')
  const next = await poll(registry, token, { since: list.headers.get('x-registry-revision')! })
  t.strictSame(list.body.map((agent: Json) => agent.agent_id), ['agent-a'])
  t.strictSame(idsOf(next), ['put agent-b'])
})

t.test('changes: a long poll waits for a matching change, and its revision passes over the others', async t => {
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

t.test('changes: a position that cannot be resumed is reported at once, also to a waiting poll', async t => {
  const store = Object.assign(new MemoryAgentStore({ leaseMs: 60_000, retentionMs: 60_000 }), {})
  const registry = await build(t, { storage: { agents: store }, feed: { ringSize: 3 } }, answers)
  const token = await registry.join('agent-0')
  for (let i = 1; i < 9; i++) await registry.join(`agent-${i}`)
  const epoch = registry.app.agentRegistry.revision.split(':')[0]
  for (const since of [`${epoch}:1`, `${epoch}:10`, 'other:9', 'incomplete']) {
    t.strictSame((await poll(registry, token, { since, wait: 30 })).body, {
      changes: [], revision: registry.app.agentRegistry.revision, resync: true
    }, since)
  }
  const waiting = poll(registry, token, { since: registry.app.agentRegistry.revision, wait: 20, agent_type: 'security' })
  await sleep(100)
  await Promise.all(Array.from({ length: 9 }, (_, i) => registry.join(`agent-1${i}`)))
  t.match((await waiting).body, { changes: [], resync: true })
  for (const wrong of [{ wait: 31 }, { wait: -1 }, { wait: 'x' }, { limit: 0 }, { limit: 501 }, { since: '' }]) {
    t.equal(problemOf(t, await poll(registry, token, wrong)), 'validation-failed', JSON.stringify(wrong))
  }
})

t.test('changes: polls that started together end at spread times', async t => {
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

t.test('changes: a poll ends with its right to read, and a disconnected one leaves no state', async t => {
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

t.test('changes: a change is evaluated once per scope, and wakes only polls that match it', async t => {
  const store = new MemoryAgentStore({ leaseMs: 60_000, retentionMs: 60_000 })
  const registry = new Registry({
    ...rules,
    store,
    leaseMs: 60_000,
    cleanupIntervalMs: 60_000,
    maxAgents: 100,
    ringSize: 100,
    hookTimeoutMs: 1000,
    hiddenFields: [],
    onError: error => { throw error }
  })
  await registry.open()
  t.teardown(() => registry.close())
  const feed = new Feed(registry)
  const subscribers = new FeedSubscribers({ feed, bookmarkIntervalMs: 30_000, now: () => 0 })
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
    const position = new FeedPosition(
      { feed, scope: { view: 'full', filter: { capabilities: [i % 2 ? 'cap odd' : 'cap even'] } }, position: 0 }
    )
    const subscriber: FeedSubscriber = { position, pump () { woken.push(position.revision); subscribers.park(subscriber) } }
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
  t.ok(woken.every(revision => revision.endsWith(':1')), 'from a position after which nothing matched')
})

t.test('every response matched its schema', async t => { t.same(answers.findings, []) })

const short = ({ event, data }: SentEvent) => [event, data.agent_id]
const take = async (stream: Awaited<ReturnType<typeof events>>, count: number, ...kinds: string[]) => {
  const found: SentEvent[] = []
  while (found.length < count) found.push(await stream.next(...kinds))
  return found
}
const changes = ['put', 'state', 'remove']
const epochOf = ({ app }: Harness) => app.agentRegistry.revision.split(':')[0]

t.test('event stream: each change is one event, in order, with its revision as the id', async t => {
  const registry = await build(t)
  const { agentRegistry } = registry.app
  const token = await registry.join('agent-reader')
  const start = agentRegistry.revision
  const stream = await events(registry, { token })
  t.match(stream.headers, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache, no-transform' })
  await until(() => stream.lastId === start)
  await registry.join()
  await agentRegistry.heartbeat('agent-one')
  await agentRegistry.setStatus('agent-one', 'draining')
  await agentRegistry.unregister('agent-one')
  const seen = await take(stream, 4)
  t.strictSame(seen.map(({ event, data }) => [event, data.op, data.state ?? null, data.reason]), [
    ['put', 'put', 'starting', 'created'],
    ['state', 'state', 'alive', 'first-sign'],
    ['state', 'state', 'draining', 'requested'],
    ['remove', 'remove', null, 'removed']
  ])
  t.equal(seen[0]!.data.agent.name, 'Agent One')
  const n = Number(start.split(':')[1])
  t.strictSame(seen.map(({ id }) => id), [1, 2, 3, 4].map(more => `${epochOf(registry)}:${n + more}`))
  t.ok(seen.every(({ id, data }) => id === data.revision))
})

t.test('event stream: it resumes from Last-Event-ID, which takes precedence over the URL', async t => {
  const registry = await build(t)
  const token = await registry.join('agent-reader')
  const first = await events(registry, { token })
  await registry.join('agent-a')
  await first.next('put')
  first.close()
  await registry.join('agent-b')
  await registry.join('agent-c')
  const byHeader = await events(
    registry, { token, query: `?since=${epochOf(registry)}:0&snapshot=true`, headers: { 'last-event-id': first.lastId } }
  )
  t.strictSame((await take(byHeader, 2)).map(short), [['put', 'agent-b'], ['put', 'agent-c']])
  const byQuery = await events(registry, { token, query: `?since=${first.lastId}` })
  t.strictSame((await take(byQuery, 2)).map(short), [['put', 'agent-b'], ['put', 'agent-c']])
  const byEmptyHeader = await events(registry, { token, query: `?since=${first.lastId}`, headers: { 'last-event-id': '' } })
  t.strictSame((await take(byEmptyHeader, 2)).map(short), [['put', 'agent-b'], ['put', 'agent-c']])
})

t.test('event stream: a snapshot has pages, and only its last one has an id to resume from', async t => {
  const registry = await build(t)
  const token = await registry.join('agent-0')
  for (let i = 1; i < 620; i++) await registry.join(`agent-${i}`)
  const stream = await events(registry, { token, query: '?snapshot=true' })
  const pages: SentEvent[] = []
  while (!pages.at(-1)?.data.last) pages.push(await stream.next())
  t.ok(pages.length > 1)
  t.ok(pages.every(({ event, data }) => event === 'snapshot' && data.revision === registry.app.agentRegistry.revision))
  t.strictSame(pages.map(({ id }) => id), [...Array(pages.length - 1).fill('incomplete'), registry.app.agentRegistry.revision])
  t.strictSame(pages.flatMap(({ data }) =>
    data.agents.map((agent: Json) => agent.agent_id)), Array.from({ length: 620 }, (_, i) => `agent-${i}`))
  await registry.join('agent-next')
  t.strictSame(short(await stream.next()), ['put', 'agent-next'])
})

t.test('event stream: an invalid or expired id starts a new snapshot', async t => {
  const registry = await build(t, { feed: { ringSize: 3 } })
  const token = await registry.join('agent-0')
  for (let i = 1; i < 9; i++) await registry.join(`agent-${i}`)
  const epoch = epochOf(registry)
  for (const id of [`${epoch}:1`, `${epoch}:10`, 'other:9', 'incomplete', 'x'.repeat(300)]) {
    const stream = await events(registry, { token, headers: { 'last-event-id': id } })
    t.match(await stream.next(), { event: 'resync', id: 'incomplete', data: { revision: registry.app.agentRegistry.revision } }, id)
    t.match(
      await stream.next(), { event: 'snapshot', id: registry.app.agentRegistry.revision, data: { last: true, agents: { length: 9 } } }, id
    )
    stream.close()
  }
  const edge = await events(registry, { token, query: `?since=${epoch}:6` })
  t.strictSame((await take(edge, 3)).map(short), [['put', 'agent-6'], ['put', 'agent-7'], ['put', 'agent-8']])
})

t.test('event stream: a filtered stream gets bookmarks, and only the whole feed has a digest', async t => {
  const registry = await build(t, { feed: { bookmarkIntervalMs: 100 } })
  const { agentRegistry } = registry.app
  const token = await registry.join('agent-reader')
  const [part, whole] = [await events(registry, { token, query: '?agent_type=SECURITY' }), await events(registry, { token })]
  await registry.join('agent-a')
  await registry.join('agent-b', { agent_type: 'security' })
  await agentRegistry.setStatus('agent-a', 'draining')
  t.strictSame(short(await part.next(...changes)), ['put', 'agent-b'])
  t.strictSame((await take(whole, 3, ...changes)).map(short), [['put', 'agent-a'], ['put', 'agent-b'], ['state', 'agent-a']])
  let marks = await Promise.all([part.next('bookmark'), whole.next('bookmark')])
  while (marks.some(({ id }) => id !== agentRegistry.revision)) marks = await Promise.all([part.next('bookmark'), whole.next('bookmark')])
  t.strictSame(marks[0], { event: 'bookmark', id: agentRegistry.revision, data: { revision: agentRegistry.revision, count: 1 } })
  t.match(marks[1], { data: { count: 3, digest: /^[0-9a-f]{16}$/ } })
  t.strictSame(part.all.filter(({ event }) => changes.includes(event)).map(short), [['put', 'agent-b']])
})

t.test('event stream: agents, users and admins may read, others may not', async t => {
  const registry = await build(t)
  const admin = await registry.admin()
  const { body: user } = await registry.post('/tokens/mint', { ...admin, body: { user_id: 'ann', agent_id: 'ann-agent' } })
  for (const call of [{ token: await registry.join() }, { token: user.access_token, headers: admin.headers }, admin]) {
    const stream = await events(registry, call)
    t.ok(stream.isOpen)
    stream.close()
    t.equal((await registry.get('/agents/changes', call)).status, 200)
  }
  for (const path of ['/agents/events', '/agents/changes']) {
    t.equal(problemOf(t, await registry.get(path)), 'authentication-failed')
    t.equal(problemOf(t, await registry.get(path, { token: await registry.tempToken() })), 'insufficient-permissions')
    t.equal(problemOf(t, await registry.get(`${path}?status=asleep`, { token: await registry.join() })), 'validation-failed')
    t.equal(problemOf(t, await registry.post(path, { token: await registry.join() })), 'method-not-allowed')
  }
})

t.test('event stream: a silent stream gets comments, and each client another retry time', async t => {
  const registry = await build(t, { feed: { keepAliveMs: 100 } })
  const token = await registry.join()
  const streams = await Promise.all(Array.from({ length: 20 }, () => events(registry, { token })))
  await until(() => streams.every(({ comments }) => comments >= 3))
  t.ok(streams.every(({ all, retryMs }) => all.length === 0 && retryMs >= 1000 && retryMs <= 3000))
  t.ok(new Set(streams.map(({ retryMs }) => retryMs)).size > 10)
})

t.test('event stream: a client that does not read costs constant memory and is disconnected', async t => {
  const registry = await build(t, { feed: { keepAliveMs: 1000 } })
  const token = await registry.join()
  const slow = connect({ port: Number(new URL(registry.base).port), host: '127.0.0.1' })
  t.teardown(() => slow.destroy())
  slow.pause()
  slow.write(`GET /agents/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n\r\n`)
  const quick = await events(registry, { token })
  const big = { metadata: { big: ['x'.repeat(90_000)] } }
  const before = process.memoryUsage.rss()
  // More than the network buffers hold.
  for (let i = 0; i < 300; i++) await registry.join(`agent-${i % 3}`, big)
  await take(quick, 300, 'put')
  t.ok(process.memoryUsage.rss() - before < 400_000_000)
  const cut = await new Promise<boolean>(resolve => {
    slow.once('close', () => resolve(true))
    // Only a client that reads receives the end.
    setTimeout(() => slow.resume(), 6000)
    setTimeout(() => resolve(false), 15_000)
  })
  t.ok(cut)
  t.ok(quick.isOpen)
})

t.test('event stream: streams and waiting polls are limited in total, per caller and per address', async t => {
  const rows: Array<[object, number]> = [[{ maxStreams: 3 }, 3], [{ maxStreamsPerCaller: 2 }, 2], [{ maxStreamsPerAddress: 4 }, 4]]
  for (const [feed, room] of rows) {
    const registry = await build(t, { feed })
    const token = await registry.join()
    const streams = [await events(registry, { token })]
    for (let i = 1; i < room; i++) streams.push(await events(registry, { token }))
    const since = registry.app.agentRegistry.revision
    for (const path of ['/agents/events', `/agents/changes?wait=5&since=${since}`]) {
      const refused = await registry.get(path, { token })
      t.equal(problemOf(t, refused), 'too-many-connections')
      t.equal(refused.status, 503)
      t.ok(Number(refused.headers.get('retry-after')) >= 1)
    }
    t.equal((await registry.get(`/agents/changes?since=${since}`, { token })).status, 200, 'a poll that need not wait is served')
    streams[0]!.close()
    await until(async () => {
      const response = await answerOf(registry, '/agents/events', { authorization: `Bearer ${token}` })
      if (response.statusCode !== 200) await textOf(response)
      return response.statusCode === 200
    })
  }
})

t.test('event stream: it ends within a second of its right to read', async t => {
  const registry = await build(t, { admin: { sessionTimeoutMs: 2500 } })
  type Credentials = { token: string, headers?: Record<string, string> }
  // A session is opened right before its stream: it must not expire while the other streams are tested.
  const rows: Array<[reason: string, open: () => Promise<Credentials>, end: (call: Credentials) => Promise<unknown>]> = [
    ['Replaced by a newer instance', async () => ({ token: await registry.join('agent-a') }), () => registry.join('agent-a')],
    ['Token revoked', async () => ({ token: await registry.join('agent-b') }), () => registry.app.agentRegistry.unregister('agent-b')],
    ['Session ended', () => registry.admin(), call => registry.post('/auth/logout', call)],
    ['Token expired', () => registry.admin(), () => sleep(1)]
  ]
  for (const [reason, open, end] of rows) {
    const call = await open()
    const stream = await events(registry, call)
    await end(call)
    t.match(await stream.next('end'), { data: { reason } })
    await stream.closed()
    t.equal(stream.all.filter(({ event }) => event === 'end').length, 1)
    t.equal((await registry.get('/agents/events', call)).status, 401, 'and does not open again')
  }
})

t.test('event stream: a shutdown ends all streams with spread retry times, and is not delayed', async t => {
  const registry = await build(t, { sockets: { drainMs: 3000 } })
  const token = await registry.join()
  const streams = await Promise.all(Array.from({ length: 30 }, () => events(registry, { token })))
  const poll = registry.get(`/agents/changes?wait=30&since=${registry.app.agentRegistry.revision}`, { token })
  await sleep(100)
  const closing = registry.app.close()
  const away = await Promise.all(streams.map(stream => stream.next('going_away')))
  t.ok(away.every(({ data }) => data.retryAfterMs >= 0 && data.retryAfterMs <= 3000))
  t.ok(new Set(away.map(({ data }) => data.retryAfterMs)).size > 15)
  t.ok(streams.every(({ retryMs }, index) => retryMs === away[index]!.data.retryAfterMs))
  t.strictSame((await poll).body, { changes: [], revision: registry.app.agentRegistry.revision })
  await Promise.all(streams.map(stream => stream.closed()))
  await closing
})
