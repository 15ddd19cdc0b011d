import t, { type Test } from 'tap'
import { build, problemOf, registration, sleep, until, type Harness } from '../support/harness.js'
import { builtServer } from '../support/server-process.js'
import type { RedisServer } from '../support/redis-server.js'
import { startFleet, startRedis, type Member } from '../support/fleet.js'
import { HeartbeatLoop } from '../support/heartbeat-loop.js'
import { View } from '../support/watched-view.js'
import { Watcher } from '../support/watchers.js'

const program = builtServer(t)
t.setTimeout(300_000)

interface Scene {
  redis: RedisServer
  redisUrl: string
  fleet: Member[]
  a: Member
  b: Member
  /** Token of an agent that only reads. */
  token: string
  /** One per process. */
  watchers: Watcher[]
}

/** Two processes with a watcher each, and one agent. */
async function scene (t: Test, { leaseSeconds = 600, redisArgs = [] as string[] } = {}): Promise<Scene> {
  const { redis, redisUrl } = await startRedis(t, ...redisArgs)
  const env = { AGENT_HEARTBEAT_TIMEOUT: String(leaseSeconds), REDIS_COMMAND_TIMEOUT_MS: '1000', REDIS_PROBE_INTERVAL_MS: '1000' }
  const fleet = await startFleet(t, { program, size: 2, redisUrl, env })
  const token = await fleet[0]!.agent('agent-reader')
  const watchers = fleet.map(
    member => new Watcher({ carrier: 'agents', token: () => token, place: () => member, view: new View({ keepsReceived: true }) })
  )
  t.teardown(() => { for (const watcher of watchers) watcher.end() })
  await until(() => watchers.every(({ view }) => view.revision !== undefined))
  return { redis, redisUrl, fleet, a: fleet[0]!, b: fleet[1]!, token, watchers }
}

const readiness = async (member: Member) => (await member.get('/health/ready')).status
const allReady = (fleet: readonly Member[]) =>
  until(async () => (await Promise.all(fleet.map(readiness))).every(status => status === 200), 30_000)
const allRed = (fleet: readonly Member[]) =>
  until(async () => (await Promise.all(fleet.map(readiness))).every(status => status === 503), 30_000)

/** Registers an agent at one process, and waits until every process has it. */
async function checkHealed (t: Test, { fleet, watchers }: Scene, id: string): Promise<void> {
  for (const [index, member] of fleet.entries()) {
    const { status, body } = await member.register(`${id}-${index}`)
    t.equal(status, 200)
    await Promise.all(watchers.map(watcher => watcher.reach(body.revision)))
  }
  t.strictSame(watchers.map(({ view }) => view.faults), [[], []], 'no change was received twice or missed')
}

async function populate (registry: Harness, ids: readonly string[]): Promise<void> {
  for (let i = 0; i < ids.length; i += 250) await Promise.all(ids.slice(i, i + 250).map(id => registry.join(id)))
}

/** The response of a registry without a reachable Redis. */
async function checkOutage (t: Test, { a, token }: Scene): Promise<void> {
  const writes = [
    () => a.post('/agents/agent-reader/heartbeat', { token }),
    () => a.post('/agents/agent-reader/status', { token, body: { status: 'draining' } }),
    () => a.patch('/agents/agent-reader', { token, body: { name: 'Not now' } }),
    () => a.post('/agents/register', { token, body: registration('agent-reader') }),
    () => a.delete('/agents/agent-reader', { token })
  ]
  for (const write of writes) {
    const begun = performance.now()
    const answer = await write()
    t.equal(answer.status, 503)
    t.equal(problemOf(t, answer), 'storage-unavailable')
    t.match(answer.headers.get('retry-after'), /^[1-9]\d*$/)
    t.ok(performance.now() - begun < 10_000)
  }
  const read = await a.get('/agents/agent-reader', { token })
  t.equal(read.status, 200)
  t.match(read.headers.get('x-registry-stale'), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/)
  t.equal((await a.get('/health')).body.status, 'degraded')
  t.equal((await a.get('/health/live')).status, 200)
}

t.test('redis faults: 1,000 agents survive a Redis pause of 20 s; writes are refused, and reads report their age', async t => {
  const all = await scene(t, { leaseSeconds: 8 })
  const { redis, fleet, a, watchers } = all
  const registry = await build(t, { storage: 'redis', redis: { url: all.redisUrl }, lease: { durationMs: 8000 } })
  const { agentRegistry } = registry.app
  const ids = Array.from({ length: 1000 }, (_, i) => `agent-${i}`)
  await populate(registry, ids)
  const heartbeats = new HeartbeatLoop(t, { ids: ['agent-reader', ...ids], everyMs: 1500, beat: id => agentRegistry.heartbeat(id) })
  const socket = await a.watcher()
  await Promise.all(watchers.map(watcher => watcher.reach(agentRegistry.revision)))

  redis.freeze()
  const frozen = performance.now()
  await allRed(fleet)
  await checkOutage(t, all)
  await sleep(Math.max(0, 20_000 - (performance.now() - frozen)))
  redis.thaw()
  await allReady(fleet)
  t.equal((await a.get('/agents/agent-reader', { token: all.token })).headers.get('x-registry-stale'), null)
  // Longer than a lease: agents without an extension would be dead.
  await sleep(10_000)
  await checkHealed(t, all, 'agent-after')
  const received = watchers.flatMap(({ view }) => view.received)
  t.strictSame(received.filter(text => / (dead|suspect|gone)$/.test(text)), [], 'no agent expired, was held or was removed')
  t.strictSame(watchers.map(({ view }) => view.tally.resyncs), [0, 0])
  t.ok(await socket.next('stats_update', 40_000).then(() => true), 'one socket stayed open throughout')
  await heartbeats.stop()
})

t.test('redis faults: connections of every kind that Redis closes are replaced without loss', async t => {
  const all = await scene(t)
  const { redis, fleet, watchers } = all
  const kinds = ['normal', 'pubsub', 'normal', 'pubsub']
  for (const [round, kind] of kinds.entries()) {
    t.ok(Number(await redis.client.call('CLIENT', 'KILL', 'TYPE', kind, 'SKIPME', 'yes')) > 0)
    await allReady(fleet)
    await until(() => fleet[round % 2]!.register(`agent-${kind}-${round}`).then(({ status }) => status === 200), 15_000)
  }
  await allReady(fleet)
  await checkHealed(t, all, 'agent-after-cuts')
  t.strictSame(watchers.map(({ view }) => view.tally.resyncs), [0, 0])
  const seen = await all.b.post('/agents/agent-reader/heartbeat', { token: all.token })
  await until(async () => (await all.a.get('/agents/agent-reader', { token: all.token })).body.last_seen === seen.body.last_seen, 15_000)
})

t.test('redis faults: after FLUSHALL watchers resync and agents register again', async t => {
  const all = await scene(t)
  const { redis, fleet, watchers, token, a, b } = all
  const [before] = watchers[0]!.view.revision!.split(':')
  await redis.client.flushall()
  await until(() => watchers.every(({ view }) => view.tally.resyncs > 0 && view.revision !== undefined), 20_000)
  t.strictSame(watchers.map(({ view }) => view.agents.size), [0, 0])
  t.ok(watchers.every(({ view }) => !view.revision!.startsWith(`${before}:`)), 'in another epoch')
  for (const member of fleet) await until(() => /"level":50.*The store has lost writes/.test(member.output), 10_000)
  const answer = await b.post('/agents/agent-reader/heartbeat', { token })
  t.equal(answer.status, 404)
  t.equal((await a.post('/agents/register', { token, body: registration('agent-reader') })).status, 200)
  await checkHealed(t, all, 'agent-after-flush')
})

t.test('redis faults: Redis is killed and restarts from its log, and watchers resume without duplicates', async t => {
  const all = await scene(t, { redisArgs: ['--appendonly', 'yes', '--appendfsync', 'always'] })
  const { redis, fleet, watchers } = all
  for (let round = 0; round < 3; round++) {
    const writes = Array.from({ length: 40 }, (_, i) => fleet[i % 2]!.register(`agent-${round}-${i}`).then(({ status }) => status))
    await redis.kill()
    const statuses = await Promise.all(writes)
    t.same(statuses.filter(status => status !== 200 && status !== 503 && status !== 401), [])
    await allRed(fleet)
    await redis.start()
    await allReady(fleet)
  }
  await checkHealed(t, all, 'agent-after-kills')
  t.strictSame(watchers.map(({ view }) => view.tally.resyncs), [0, 0])
  t.equal(new Set(watchers.map(({ view }) => `${view.revision} ${view.digest}`)).size, 1)
})
