import { join } from 'node:path'
import t from 'tap'
import { build, sleep, until, type Harness, type Json } from '../support/harness.js'
import { builtServer } from '../support/server-process.js'
import { startFleet, startRedis } from '../support/fleet.js'
import { HeartbeatLoop } from '../support/heartbeat-loop.js'
import { View } from '../support/watched-view.js'
import { Watcher } from '../support/watchers.js'

const program = builtServer(t)
t.setTimeout(300_000)
const idsOf = (count: number) => Array.from({ length: count }, (_, i) => `agent-${i}`)
const dead = (received: readonly string[]) => received.filter(text => text.endsWith(' dead')).map(text => text.split(' ')[0]!)

/** Registers many agents at a time without HTTP. */
async function populate (registry: Harness, ids: readonly string[]): Promise<string> {
  let token = ''
  for (let i = 0; i < ids.length; i += 250) [token] = await Promise.all(ids.slice(i, i + 250).map(id => registry.join(id))) as [string]
  return token
}

t.test('deaths: 10,000 leases, of which 1,000 expire within a second, expire once each across four sweeping processes', async t => {
  const { redisUrl } = await startRedis(t)
  const leaseSeconds = 15
  const fleet = await startFleet(t, { program, size: 3, redisUrl, env: { AGENT_HEARTBEAT_TIMEOUT: String(leaseSeconds) } })
  const registry = await build(t, { storage: 'redis', redis: { url: redisUrl }, lease: { durationMs: leaseSeconds * 1000 } })
  const ids = idsOf(10_000)
  const { agentRegistry } = registry.app
  const heartbeats = new HeartbeatLoop(t, { ids, everyMs: 3000, beat: id => agentRegistry.heartbeat(id) })
  const token = await populate(registry, ids)
  const watchers = fleet.map(
    member => new Watcher({ carrier: 'agents', token: () => token, place: () => member, view: new View({ keepsReceived: true }) })
  )
  t.teardown(() => { for (const watcher of watchers) watcher.end() })
  await Promise.all(watchers.map(watcher => watcher.reach(agentRegistry.revision)))

  const silent = ids.filter((_, i) => i % 10 === 0)
  heartbeats.silence(silent)
  for (let i = 0; i < silent.length; i += 100) {
    await Promise.all(silent.slice(i, i + 100).map(id => agentRegistry.heartbeat(id)))
    await sleep(80)
  }
  await until(() => watchers.every(({ view }) => dead(view.received).length >= silent.length), 60_000)
  // Leave time for a repeated expiry.
  await sleep(2000)
  for (const { view } of watchers) {
    t.same(view.faults, [])
    t.strictSame(dead(view.received).sort(), [...silent].sort())
  }
  t.same(new Set(watchers.map(({ view }) => dead(view.received).join())).size, 1, 'in the same order everywhere')
  t.match(agentRegistry.stats(), { total_agents: 10_000, dead_agents: 1000 })
})

const shiftClock = (ms: number) => `
const RealDate = Date
globalThis.Date = class Date extends RealDate {
  constructor (...args) { if (args.length === 0) super(RealDate.now() + ${ms}); else super(...args) }
  static now () { return RealDate.now() + ${ms} }
}
Object.defineProperty(performance, 'timeOrigin', { value: performance.timeOrigin + ${ms} })
`

t.test('deaths: in processes with other time zones or clocks off by an hour, leases expire on time', async t => {
  const folder = t.testdir({ 'fast.mjs': shiftClock(3_600_000), 'slow.mjs': shiftClock(-3_600_000) })
  const each = (index: number) => [
    { env: { TZ: 'America/New_York' } },
    { env: { TZ: 'Asia/Kolkata' } },
    { nodeArgs: ['--import', join(folder, 'fast.mjs')] },
    { nodeArgs: ['--import', join(folder, 'slow.mjs')] }
  ][index]!
  const { redisUrl } = await startRedis(t)
  const fleet = await startFleet(t, {
    program, size: 4, folder, redisUrl, each, env: { AGENT_HEARTBEAT_TIMEOUT: '4', AGENT_RETENTION: '3', AGENT_CLEANUP_INTERVAL: '0.5' }
  })
  const [fast, slow] = [fleet[2]!, fleet[3]!]
  t.match([await timeOf(fast), await timeOf(slow)].map(hours => Math.round(hours)), [1, -1], 'the clocks are wrong')

  const ids = idsOf(12)
  const tokens = new Map<string, string>()
  for (const [i, id] of ids.entries()) tokens.set(id, await fleet[i % 4]!.agent(id))
  const token = tokens.get('agent-0')!
  const watchers = fleet.map(
    member => new Watcher({ carrier: 'agents', token: () => token, place: () => member, view: new View({ keepsReceived: true }) })
  )
  t.teardown(() => { for (const watcher of watchers) watcher.end() })
  let turn = 0
  const lastBeat = new Map<string, number>()
  const heartbeats = new HeartbeatLoop(t, {
    ids,
    everyMs: 500,
    beat: async id => {
      await fleet[turn++ % 4]!.post(`/agents/${id}/heartbeat`, { token: tokens.get(id)! })
      lastBeat.set(id, performance.now())
    }
  })
  const silent = ['agent-10', 'agent-11']
  await sleep(9000)
  t.strictSame(watchers.map(({ view }) => dead(view.received)), [[], [], [], []], 'agents that send heartbeats stay alive for two leases')
  for (const member of fleet) {
    const { body } = await member.get('/agents', { token })
    t.ok(body.every(({ last_seen: seen }: Json) => Math.abs(Date.parse(seen) - Date.now()) < 60_000), 'the displayed time is right')
  }
  heartbeats.silence(silent)
  await until(() => watchers.every(({ view }) => dead(view.received).length === 2), 30_000)
  const diedAfter = Math.min(...silent.map(id => performance.now() - lastBeat.get(id)!))
  t.ok(diedAfter >= 3900, `after ${Math.round(diedAfter)} ms of 4000`)
  await until(() => watchers.every(({ view }) => view.received.filter(text => text.endsWith('remove gone')).length === 2), 30_000)
  for (const { view } of watchers) {
    t.same(view.faults, [])
    t.strictSame(dead(view.received).sort(), silent)
  }
})

/** Offset of the clock of a process, in hours. */
async function timeOf (member: { get (path: string): Promise<{ body: Json }> }): Promise<number> {
  const { body } = await member.get('/health')
  return (Date.parse(body.timestamp) - Date.now()) / 3_600_000
}
