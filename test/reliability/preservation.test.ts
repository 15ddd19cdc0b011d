import t, { type Test } from 'tap'
import { sleep, until } from '../support/harness.js'
import { builtServer } from '../support/server-process.js'
import { startFleet, startRedis, type Member } from '../support/fleet.js'
import { HeartbeatLoop } from '../support/heartbeat-loop.js'
import { View } from '../support/watched-view.js'
import { Watcher } from '../support/watchers.js'

const program = builtServer(t)
t.setTimeout(300_000)
// The tests mostly wait for their own leases, so they run concurrently.
t.jobs = 3
const leaseMs = 3000

interface FleetWithAgents {
  fleet: Member[]
  ids: string[]
  tokens: ReadonlyMap<string, string>
  silence: (ids: readonly string[]) => void
  /** `<agent_id> <op> <state>` of each change that a watcher at the first process received. */
  received: string[]
  watchers: Watcher[]
}

/** Two processes, and agents that send heartbeats to one of them each: half to the first, half to the second. */
async function startFleetWithAgents (t: Test, size: number): Promise<FleetWithAgents> {
  const { redisUrl } = await startRedis(t)
  const fleet = await startFleet(t, { program, size: 2, redisUrl, env: { AGENT_HEARTBEAT_TIMEOUT: String(leaseMs / 1000) } })
  const ids = Array.from({ length: size }, (_, i) => `agent-${i}`)
  const homes = new Map(ids.map((id, i) => [id, fleet[i % 2]!]))
  const tokens = new Map(await Promise.all(ids.map(async id => [id, await homes.get(id)!.agent(id)] as const)))
  const beat = (id: string) => homes.get(id)!.post(`/agents/${id}/heartbeat`, { token: tokens.get(id)! })
  // One loop per process, so that a stopped process does not delay the heartbeats to the other.
  const loops = fleet.map(member => new HeartbeatLoop(t, { ids: ids.filter(id => homes.get(id) === member), everyMs: leaseMs / 8, beat }))
  const silence = (silent: readonly string[]) => { for (const heartbeats of loops) heartbeats.silence(silent) }
  const { token, headers } = await fleet[1]!.admin()
  const watchers = fleet.map(
    member => new Watcher({ carrier: 'agents', token: () => token, headers, place: () => member, view: new View({ keepsReceived: true }) })
  )
  t.teardown(() => { for (const watcher of watchers) watcher.end() })
  await until(() =>
    watchers.every(({ view }) => view.agents.size === size && [...view.agents.values()].every(({ state }) => state === 'alive')), 15_000)
  return { fleet, ids, tokens, silence, watchers, received: watchers[1]!.view.received }
}

const count = (received: readonly string[], state: string) => received.filter(text => text.endsWith(` ${state}`)).length

t.test('self-preservation: after all processes are stopped no agent expires and none is held', async t => {
  const { fleet, received, watchers } = await startFleetWithAgents(t, 40)
  const before = received.length
  for (const member of fleet) member.signal('SIGSTOP')
  await sleep(3 * leaseMs)
  for (const member of fleet) member.signal('SIGCONT')
  await sleep(3 * leaseMs)
  t.strictSame(received.slice(before), [])
  t.strictSame(watchers.map(({ view }) => view.faults), [[], []])
})

t.test('self-preservation: agents of a stopped process are held and recover when it resumes', async t => {
  const { fleet, received, watchers } = await startFleetWithAgents(t, 40)
  fleet[0]!.signal('SIGSTOP')
  await until(() => count(received, 'suspect') === 20, 30_000)
  fleet[0]!.signal('SIGCONT')
  await until(() => watchers.every(({ view }) => [...view.agents.values()].every(({ state }) => state === 'alive')), 30_000)
  await sleep(2 * leaseMs)
  t.equal(count(received, 'dead'), 0)
})

t.test('self-preservation: half of the fleet falls silent, is held for three leases, and then expires gradually', async t => {
  const { silence, ids, received, watchers } = await startFleetWithAgents(t, 40)
  const gone = ids.filter((_, i) => i % 4 < 2)
  const silentSince = performance.now()
  silence(gone)
  await until(() => count(received, 'suspect') === 20, 30_000)
  t.equal(count(received, 'dead'), 0)
  await until(() => count(received, 'dead') > 0, 60_000)
  const firstDeath = performance.now()
  // The last heartbeat may be a third of a lease older than the silence.
  t.ok(firstDeath - silentSince >= 3.6 * leaseMs, 'after the rest of the lease and three leases of hold')
  await until(() => count(received, 'dead') === 20, 60_000)
  // At 15 % of 40 per second, 20 agents take more than 3 s.
  t.ok(performance.now() - firstDeath > 2000)
  await sleep(2 * leaseMs)
  for (const { view } of watchers) {
    t.same(view.faults, [])
    t.strictSame(view.received.filter(text => / (suspect|dead)$/.test(text)).map(text =>
      text.replace(' state', '')).sort(), gone.flatMap(id => [`${id} dead`, `${id} suspect`]).sort())
  }
})

t.test('self-preservation: one silent agent of three expires and is not held', async t => {
  const { silence, received } = await startFleetWithAgents(t, 3)
  silence(['agent-1'])
  await until(() => count(received, 'dead') === 1, 30_000)
  t.strictSame(received.filter(text => / (suspect|dead)$/.test(text)), ['agent-1 state dead'])
})

t.test('self-preservation: agents that unregister are not counted, and silent agents expire afterwards', async t => {
  const { fleet, silence, ids, tokens, received } = await startFleetWithAgents(t, 40)
  const leaving = ids.slice(0, 8)
  silence([...leaving, 'agent-20'])
  const answers = await Promise.all(leaving.map((id, i) => fleet[i % 2]!.delete(`/agents/${id}`, { token: tokens.get(id)! })))
  t.same(answers.filter(({ status }) => status !== 200), [])
  await until(() => count(received, 'dead') === 1, 30_000)
  await sleep(leaseMs)
  t.strictSame(received.filter(text => / (suspect|dead)$/.test(text)), ['agent-20 state dead'])
  t.equal(count(received, 'gone'), 8)
})
