import t from 'tap'
import { View } from '../../support/watched-view.js'
import { build, until, type Client, type Harness, type Json } from '../../support/harness.js'
import { dashboard } from './dashboard-helper.js'
import { assertAlive, nextWhere } from './helper.js'
import { Tunnel } from './tunnel.js'

const large = (name: string) => ({ name, metadata: { text: ['x'.repeat(100_000)] } })

/** Changes one agent so often, each time by a hundred kilobytes, that no network holds it all. */
async function change (registry: Harness, rounds: number): Promise<string> {
  for (let round = 1; round <= rounds; round++) {
    await registry.join('agent-one', large(`Round ${round}`))
    await new Promise(setImmediate)
  }
  return `Round ${rounds}`
}

/** A socket of each kind that is sent the newest of something, on this network. */
async function openReaders (network: Pick<Tunnel, 'watcher' | 'agentSocket' | 'socket'>, token: string) {
  return { updates: await network.watcher(), lists: await network.agentSocket(token), data: await dashboard(network as Tunnel, token) }
}

const typesSeen = ({ all }: Client, type: string) => all.filter(frame => type === 'list' ? Array.isArray(frame) : frame.type === type).length

t.test('who reads ten kilobytes a second, or nothing, gets the newest when it goes on; its neighbours wait for nobody', async t => {
  const registry = await build(t, {
    agentsWs: { intervalMs: 1 }, dashboardWs: { intervalMs: 50, maxConnections: 10 }, sockets: { agentsUpdateIntervalMs: 1, maxBufferedBytes: 1_000_000 }, feed: { bookmarkIntervalMs: 200 }
  })
  const { token } = await registry.admin()
  const [slow, frozen] = [await Tunnel.open(t, registry), await Tunnel.open(t, registry)]
  const readers = [await openReaders(slow, token), await openReaders(frozen, token)]
  const [neighbours, follower] = [await openReaders(registry, token), await registry.agentSocket(token)]
  follower.send({ type: 'watch', snapshot: true })
  await follower.next('agents_snapshot')
  slow.restrict(10_000)
  frozen.restrict(0)
  const rounds = 250
  const newest = await change(registry, rounds)

  await nextWhere(neighbours.updates, 'agents_update', ({ data }) => data.agents[0].name === newest)
  await nextWhere(neighbours.lists, 'list', ([agent]) => agent.name === newest)
  await follower.next('bookmark')
  t.strictSame(viewOf(follower).faults, [], 'every change, in order')
  for (const client of Object.values(neighbours)) await assertAlive(client)
  for (const { updates, lists } of readers) t.ok(typesSeen(updates, 'agents_update') < rounds / 2 && typesSeen(lists, 'list') < rounds / 2)

  slow.release()
  frozen.release()
  const since = Date.now()
  for (const { updates, lists, data } of readers) {
    await nextWhere(updates, 'agents_update', ({ data }) => data.agents[0].name === newest)
    await nextWhere(lists, 'list', ([agent]) => agent.name === newest)
    await nextWhere(data, 'monitoring', ({ timestamp }) => Date.parse(timestamp) > since)
    t.ok(typesSeen(updates, 'agents_update') < rounds, `${typesSeen(updates, 'agents_update')} of ${rounds} updates`)
    for (const client of [updates, lists, data]) await assertAlive(client)
  }
})

/** What a watcher knows from the frames that came. */
function viewOf ({ all }: Client): View {
  const view = new View()
  for (const frame of all) if (!Array.isArray(frame)) view.take(frame.type, frame)
  return view
}

for (const { name, ringSize } of [{ name: 'goes on without a gap', ringSize: 10_000 }, { name: 'begins anew when too much was missed', ringSize: 20 }]) {
  t.test(`a watcher that wakes up ${name}`, async t => {
    const registry = await build(t, { feed: { ringSize, bookmarkIntervalMs: 200 }, agentsWs: { intervalMs: 60_000 } })
    const network = await Tunnel.open(t, registry)
    const watcher = await network.agentSocket((await registry.admin()).token)
    watcher.send({ type: 'watch', snapshot: true })
    await watcher.next('agents_snapshot')
    network.restrict(0)
    await change(registry, 250)
    for (let i = 0; i < 50; i++) await registry.join(`agent-${i}`)
    await registry.app.agentRegistry.unregister('agent-7')
    network.release()
    const revision = (await registry.get('/agents', await registry.admin())).headers.get('x-registry-revision')
    await nextWhere(watcher, 'bookmark', (frame: Json) => frame.revision === revision, 20_000)
    const { faults, tally } = viewOf(watcher)
    t.strictSame(faults, [], 'each revision once, in order, and the digest agrees')
    t.equal(tally.resyncs, ringSize < 100 ? 1 : 0)
    const deltas = typesSeen(watcher, 'agents_delta')
    t.ok(deltas < tally.changes || tally.resyncs > 0, `${tally.changes} changes in ${deltas} frames`)
  })
}

t.test('answers that nobody reads are kept up to the limit, however many they are and ask', async t => {
  const registry = await build(t, { sockets: { maxBufferedBytes: 500_000 }, publicWs: { burst: 1000 } })
  for (let i = 0; i < 8; i++) await registry.join(`agent-${i}`, large('Large'))
  const network = await Tunnel.open(t, registry)
  const [frozen, neighbour] = [await Promise.all(Array.from({ length: 20 }, () => network.watcher())), await registry.watcher()]
  network.restrict(0)
  const before = process.memoryUsage().rss
  for (let round = 0; round < 100; round++) {
    for (const client of frozen) client.send({ type: 'get_discovery' })
    if (round % 10 === 0) await assertAlive(neighbour)
  }
  neighbour.send({ type: 'get_discovery' })
  t.equal((await neighbour.next('discovery_data')).data.agents.length, 8)
  const grown = (process.memoryUsage().rss - before) / 1_048_576
  t.ok(grown < 500, `${Math.round(grown)} MiB for 1600 MiB of answers`)
  network.release()
  for (const client of frozen) t.strictSame(await client.closed, { code: 4008, reason: 'Slow consumer' })
  await until(async () => (await registry.get('/health')).status === 200)
})
