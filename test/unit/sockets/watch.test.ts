import { createHash } from 'node:crypto'
import t from 'tap'
import { build, until, type Client, type Json } from '../../support/harness.js'
import { assertAlive, nextWhere, refusalOf, undocumentedFrames } from './helper.js'

/** The state of a client that follows the feed. */
class Mirror {
  readonly agents = new Map<string, Json>()
  readonly revisions: string[] = []
  revision = ''

  take (frame: Json): void {
    if (frame.type === 'agents_snapshot') for (const agent of frame.agents) this.agents.set(agent.agent_id, agent)
    if (frame.type === 'agents_delta') for (const change of frame.changes) this.#apply(change)
    if (frame.revision) this.revision = frame.revision
  }

  /** The sum modulo 2^64 of the first 8 bytes of SHA-256(agent_id NUL revision NUL state). */
  digest (): string {
    let sum = 0n
    for (const { agent_id: id, revision, state } of this.agents.values()) {
      sum += createHash('sha256').update(`${id}\0${revision}\0${state}`).digest().readBigUInt64BE()
    }
    return (sum % 2n ** 64n).toString(16).padStart(16, '0')
  }

  #apply ({ op, agent_id: id, agent, state, revision }: Json) {
    this.revisions.push(revision)
    this.revision = revision
    if (op === 'remove') this.agents.delete(id)
    else this.agents.set(id, op === 'put' ? agent : { ...this.agents.get(id), state, revision })
  }
}

async function changes (client: Client, count: number): Promise<Json[]> {
  const found: Json[] = []
  while (found.length < count) found.push(...(await client.next('agents_delta')).changes)
  return found
}

const short = ({ op, agent_id: id, state, previous, reason }: Json) => [op, id, previous ?? null, state ?? null, reason]
const numberOf = (revision: string) => Number(revision.split(':')[1])

t.test('watch: every change is sent once and in order, with its kind and reason', async t => {
  const registry = await build(t, { lease: { durationMs: 1200, retentionMs: 1500, cleanupIntervalMs: 50 } })
  const { agentRegistry } = registry.app
  const admin = await registry.agentSocket((await registry.admin()).token)
  const start = agentRegistry.revision
  admin.send({ type: 'watch', requestId: 'r' })
  t.strictSame(await admin.next('ack'), { type: 'ack', requestId: 'r', revision: start })
  const token = await registry.join()
  await agentRegistry.heartbeat('agent-one')
  await agentRegistry.heartbeat('agent-one')
  await registry.patch('/agents/agent-one', { token, body: { name: 'Renamed' } })
  await agentRegistry.setStatus('agent-one', 'draining')
  await agentRegistry.setStatus('agent-one', 'maintenance')
  await agentRegistry.setStatus('agent-one', 'alive')
  await registry.join('agent-one', { name: 'Again' })
  const seen = await changes(admin, 7)
  await until(() => agentRegistry.get('agent-one')?.status === 'dead')
  await agentRegistry.heartbeat('agent-one')
  await agentRegistry.unregister('agent-one')
  await registry.join('agent-two')
  seen.push(...await changes(admin, 6))
  t.strictSame(seen.map(short), [
    ['put', 'agent-one', null, 'starting', 'created'],
    ['state', 'agent-one', 'starting', 'alive', 'first-sign'],
    ['put', 'agent-one', 'alive', 'alive', 'patched'],
    ['state', 'agent-one', 'alive', 'draining', 'requested'],
    ['state', 'agent-one', 'draining', 'maintenance', 'requested'],
    ['state', 'agent-one', 'maintenance', 'alive', 'requested'],
    ['put', 'agent-one', 'alive', 'starting', 'replaced'],
    ['state', 'agent-one', 'starting', 'dead', 'lease-expired'],
    ['state', 'agent-one', 'dead', 'alive', 'revived'],
    ['remove', 'agent-one', 'alive', null, 'removed'],
    ['put', 'agent-two', null, 'starting', 'created'],
    ['state', 'agent-two', 'starting', 'dead', 'lease-expired'],
    ['remove', 'agent-two', 'dead', null, 'retention']
  ])
  const numbers = seen.map(({ revision }) => numberOf(revision))
  t.strictSame(numbers, numbers.map((_, index) => numberOf(start) + index + 1), 'each revision once')
  t.match([seen[0].agent.name, seen[2].agent.name, seen[6].agent.name], ['Agent One', 'Renamed', 'Again'])
  t.strictSame(undocumentedFrames('agents', admin.all), [])
})

t.test('watch: a snapshot has pages, and changes follow the last one', async t => {
  const registry = await build(t)
  for (let i = 0; i < 620; i++) await registry.join(`agent-${i}`)
  const client = await registry.watcher()
  client.send({ type: 'watch', snapshot: true, requestId: 'r' })
  const pages: Json[] = []
  while (!pages.at(-1)?.last) pages.push(await client.next('agents_snapshot'))
  t.ok(pages.length > 1, `${pages.length} pages`)
  t.ok(pages.every(({ revision }) => revision === registry.app.agentRegistry.revision))
  t.strictSame(pages.flatMap(({ agents }) =>
    agents.map((agent: Json) => agent.agent_id)), Array.from({ length: 620 }, (_, i) => `agent-${i}`))
  t.ok(pages.every(page => JSON.stringify(page).length < 1_048_576))
  await registry.join('agent-next')
  t.equal((await changes(client, 1))[0].agent_id, 'agent-next')
  t.strictSame(undocumentedFrames('public', client.all), [])
})

t.test('watch: a filtered watcher receives agents that enter and leave', async t => {
  const registry = await build(t)
  const { agentRegistry } = registry.app
  const admin = await registry.agentSocket((await registry.admin()).token)
  const cases: Array<[object, (token: string) => Promise<unknown>, (token: string) => Promise<unknown>]> = [
    [{ capabilities: ['cap one', 'cap two'] }, token => registry.patch(
      '/agents/agent-one', { token, body: { capabilities: ['cap two', 'cap one'] } }
    ), token => registry.patch('/agents/agent-one', { token, body: { capabilities: ['cap one'] } })],
    [{ agent_type: 'SECURITY' }, token => registry.patch('/agents/agent-one', { token, body: { agent_type: 'security' } }), token =>
      registry.patch('/agents/agent-one', { token, body: { agent_type: 'testing' } })]
  ]
  for (const [filter, enter, leave] of cases) {
    const token = await registry.join()
    admin.send({ type: 'watch', filter, snapshot: true })
    t.match(await admin.next('agents_snapshot'), { agents: [], last: true })
    await enter(token)
    await agentRegistry.setStatus('agent-one', 'draining')
    await leave(token)
    await agentRegistry.setStatus('agent-one', 'alive')
    t.strictSame((await changes(admin, 3)).map(({ op }) => op), ['put', 'state', 'remove'], JSON.stringify(filter))
    await enter(token)
    t.strictSame((await changes(admin, 1)).map(({ op }) => op), ['put'])
    await agentRegistry.unregister('agent-one')
    t.strictSame((await changes(admin, 1)).map(({ op }) => op), ['remove'])
  }
})

t.test('watch: a watcher of one status receives deaths as removals or as entries', async t => {
  const registry = await build(t, { lease: { durationMs: 400 } })
  const { token } = await registry.admin()
  const [alive, dead] = [await registry.agentSocket(token), await registry.agentSocket(token)]
  alive.send({ type: 'watch', filter: { status: 'alive' } })
  dead.send({ type: 'watch', filter: { status: 'dead' } })
  await Promise.all([alive.next('ack'), dead.next('ack')])
  await registry.join()
  await until(() => registry.app.agentRegistry.get('agent-one')!.status === 'dead')
  await registry.app.agentRegistry.heartbeat('agent-one')
  t.strictSame((await changes(alive, 3)).map(({ op }) => op), ['put', 'remove', 'put'])
  t.strictSame((await changes(dead, 2)).map(({ op }) => op), ['put', 'remove'])
})

t.test('watch: the public tier watches discoverable agents, without a digest', async t => {
  const registry = await build(t, { publicFields: [], feed: { bookmarkIntervalMs: 100 } })
  const { agentRegistry } = registry.app
  const client = await registry.watcher()
  client.send({ type: 'watch' })
  await client.next('ack')
  await registry.join('agent-one', { ai_context: 'secret plan' })
  await agentRegistry.setStatus('agent-one', 'draining')
  await agentRegistry.setStatus('agent-one', 'maintenance')
  await agentRegistry.setStatus('agent-one', 'alive')
  await agentRegistry.heartbeat('agent-one')
  const seen = await changes(client, 3)
  t.strictSame(seen.map(short), [
    ['put', 'agent-one', null, 'starting', 'created'],
    ['remove', 'agent-one', 'starting', null, 'requested'],
    ['put', 'agent-one', 'maintenance', 'alive', 'requested']
  ])
  t.notOk(JSON.stringify(client.all).includes('secret plan'))
  const bookmark = await nextWhere(client, 'bookmark', ({ revision }) => revision === agentRegistry.revision)
  t.strictSame(bookmark, { type: 'bookmark', revision: agentRegistry.revision, count: 1 })
  t.strictSame(undocumentedFrames('public', client.all), [])
})

t.test('watch: a bookmark proves that no change was missed', async t => {
  const registry = await build(t, { feed: { bookmarkIntervalMs: 100 } })
  const { agentRegistry } = registry.app
  for (let i = 0; i < 5; i++) await registry.join(`agent-${i}`)
  const admin = await registry.agentSocket((await registry.admin()).token)
  admin.send({ type: 'watch', snapshot: true })
  await agentRegistry.setStatus('agent-0', 'draining')
  await agentRegistry.heartbeat('agent-1')
  await agentRegistry.unregister('agent-2')
  await registry.join('agent-9')
  const bookmark = await nextWhere(admin, 'bookmark', ({ revision }) => revision === agentRegistry.revision)
  const mirror = new Mirror()
  for (const frame of admin.all) mirror.take(frame)
  t.strictSame(bookmark, { type: 'bookmark', revision: agentRegistry.revision, count: 5, digest: mirror.digest() })
  t.strictSame([...mirror.agents.keys()].sort(), agentRegistry.list().map(agent => agent.agent_id).sort())
  await registry.join('agent-more')
  const next = await nextWhere(admin, 'bookmark', ({ revision }) => revision === agentRegistry.revision)
  t.not(next.digest, bookmark.digest)
  admin.send({ type: 'watch', filter: { agent_type: 'testing' } })
  await admin.next('ack')
  t.strictSame(await admin.next('bookmark'), { type: 'bookmark', revision: agentRegistry.revision, count: 6 }, 'a filter has no digest')
  await agentRegistry.unregister('agent-more')
  t.equal((await nextWhere(admin, 'bookmark', ({ revision }) => revision === agentRegistry.revision)).count, 5)
})

t.test('watch: a watcher that reconnects receives exactly the missed changes', async t => {
  const registry = await build(t)
  const { token } = await registry.admin()
  const first = await registry.agentSocket(token)
  first.send({ type: 'watch' })
  await first.next('ack')
  await registry.join('agent-one')
  const since = (await changes(first, 1))[0].revision
  first.terminate()
  for (const id of ['agent-two', 'agent-three']) await registry.join(id)
  await registry.app.agentRegistry.unregister('agent-one')
  const second = await registry.agentSocket(token)
  second.send({ type: 'watch', since, requestId: 'r' })
  t.strictSame(await second.next('ack'), { type: 'ack', requestId: 'r', revision: since })
  t.strictSame((await changes(second, 3)).map(({ op, agent_id: id }) => [op, id]), [
    ['put', 'agent-two'], ['put', 'agent-three'], ['remove', 'agent-one']
  ])
  second.send({ type: 'watch', since: registry.app.agentRegistry.revision })
  await second.next('ack')
  await assertAlive(second)
  t.strictSame(await second.pending(), [], 'a watcher that missed nothing gets nothing')
})

t.test('watch: a position that cannot be resumed gets a resync and a snapshot', async t => {
  const registry = await build(t, { feed: { ringSize: 5 } })
  const { agentRegistry } = registry.app
  const epoch = agentRegistry.revision.split(':')[0]
  for (let i = 0; i < 15; i++) await registry.join(`agent-${i}`)
  const client = await registry.watcher()
  for (const since of [`${epoch}:1`, `${epoch}:16`, 'other:15', `${epoch}:15:1`, `${epoch}:x`, epoch!, ':', `${epoch}:9999999999999999`]) {
    client.send({ type: 'watch', since, requestId: since })
    t.strictSame(await client.next(), { type: 'ack', requestId: since, revision: agentRegistry.revision }, since)
    t.strictSame(await client.next(), { type: 'resync', revision: agentRegistry.revision }, since)
    t.match(await client.next(), { type: 'agents_snapshot', last: true, agents: { length: 15 } }, since)
  }
  client.send({ type: 'watch', since: `${epoch}:10` })
  await client.next('ack')
  t.equal((await changes(client, 5)).length, 5, 'the ring resumes from its edge')
  client.send({ type: 'watch', since: `${epoch}:1`, snapshot: true })
  t.equal((await client.next('ack')).revision, agentRegistry.revision)
  t.match(await client.next('agents_snapshot'), { last: true })
  t.match(await refusalOf(client, { type: 'watch', since: '' }), { code: 'invalid_frame' })
})

t.test('watch: deltas replace lists, a second watch replaces the first, and unwatch restores lists', async t => {
  const registry = await build(t)
  const client = await registry.watcher()
  client.send({ type: 'watch', filter: { agent_type: 'security' } })
  client.send({ type: 'watch', requestId: 'second' })
  await nextWhere(client, 'ack', ({ requestId }) => requestId === 'second')
  await registry.join('agent-one')
  t.equal((await changes(client, 1)).length, 1)
  t.strictSame(await client.pending(200), [], 'no list, and nothing twice')
  client.send({ type: 'unwatch', requestId: 'r' })
  t.strictSame(await client.next('ack'), { type: 'ack', requestId: 'r' })
  await registry.join('agent-two')
  t.equal((await client.next('agents_update')).data.total_count, 2)
  t.equal(client.all.filter(({ type }) => type === 'agents_delta').length, 1)
})

t.test('watch: many changes of one tick are sent in few frames', async t => {
  const registry = await build(t)
  const client = await registry.watcher()
  client.send({ type: 'watch' })
  await client.next('ack')
  await Promise.all(Array.from({ length: 700 }, (_, i) => registry.join(`agent-${i}`)))
  const seen = await changes(client, 700)
  t.equal(new Set(seen.map(({ revision }) => revision)).size, 700)
  const frames = client.all.filter(({ type }) => type === 'agents_delta')
  t.ok(frames.length < 50, `${frames.length} frames`)
  t.ok(frames.every(frame => frame.changes.length <= 500))
})
