// Delay of dead events when many leases end within one second and three registries sweep for them.
import { setTimeout as sleep } from 'node:timers/promises'
import fastify, { type FastifyInstance } from 'fastify'
import agentRegistry from 'fastify-agent-registry'
import { startRedis } from './redis.js'
import { cost, type Row } from './report.js'
import { agents } from './sample-data.js'
import { percentile } from './statistics.js'

const population = 10_000
const silent = 1_000
const leaseMs = 15_000

async function open (url: string): Promise<FastifyInstance> {
  const app = fastify()
  await app.register(agentRegistry, {
    storage: 'redis',
    redis: { url },
    allowedAgentTypes: ['*'],
    lease: { durationMs: leaseMs },
    search: { enabled: false }
  })
  await app.ready()
  return app
}

/** Sends heartbeats of the given agents, in groups. */
async function keepAlive (app: FastifyInstance, ids: string[], isOver: () => boolean): Promise<void> {
  while (!isOver()) {
    for (let at = 0; at < ids.length && !isOver(); at += 500) {
      await Promise.all(ids.slice(at, at + 500).map(id => app.agentRegistry.heartbeat(id)))
      await sleep(50)
    }
  }
}

export async function leaseExpiry (): Promise<Row[]> {
  const redis = await startRedis()
  const apps = await Promise.all([1, 2, 3].map(() => open(redis.url)))
  const [app] = apps as [FastifyInstance]
  const delays: number[] = []
  apps[2]!.agentRegistry.events.on('dead', ({ agent }) => { delays.push(Date.now() - Date.parse(agent.last_seen) - leaseMs) })
  const registrations = [...agents(population, 1)]
  for (let at = 0; at < population; at += 100) {
    await Promise.all(registrations.slice(at, at + 100).map(agent => app.agentRegistry.register(agent)))
  }
  const ids = registrations.map(({ agent_id: id }) => id)
  const alive = keepAlive(app, ids.slice(silent), () => delays.length >= silent)
  // The last heartbeats of the silent agents, all within a second.
  for (let at = 0; at < silent; at += 100) {
    await Promise.all(ids.slice(at, at + 100).map(id => app.agentRegistry.heartbeat(id)))
    await sleep(90)
  }
  await alive
  await sleep(1000)
  for (const each of apps) await each.close()
  await redis.stop()
  const [p50, p99] = [percentile(delays, 0.5), percentile(delays, 0.99)]
  const isOnce = delays.length === silent
  return [{
    name: `redis: ${silent.toLocaleString('en')} of ${population.toLocaleString('en')} leases end within a second, three sweepers`,
    ours: `${delays.length} dead events, p50 ${p50} ms, p99 ${p99} ms late`,
    peer: '–',
    ratio: '–',
    goal: 'p99 ≤ 1 s',
    met: isOnce && p99 <= 1000,
    figures: [cost('dead event after lease end, p50', 'ms', p50), cost('dead event after lease end, p99', 'ms', p99)]
  }]
}
