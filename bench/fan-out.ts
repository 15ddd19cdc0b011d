// Delay of one change to the last of many watchers.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import fastify from 'fastify'
import agentRegistry from 'fastify-agent-registry'
import { cost, rounds, type Row } from './report.js'
import { agents } from './sample-data.js'
import { median } from './statistics.js'

const now = () => performance.timeOrigin + performance.now()

/** Registers agents one by one. The process of the watchers reports when the last of them has received each change. */
export async function fanOut (population: number, watchers: number): Promise<Row[]> {
  const app = fastify()
  await app.register(agentRegistry, {
    allowedAgentTypes: ['*'],
    lease: { durationMs: 3_600_000 },
    publicWs: { maxConnections: watchers + 10 },
    admission: { burst: watchers + 10 }
  })
  for (const agent of agents(population, 1)) await app.agentRegistry.register(agent)
  await app.listen({ port: 0, host: '127.0.0.1' })
  const child = fork(new URL('./watchers.js', import.meta.url), [String((app.server.address() as AddressInfo).port), String(watchers)])
  await once(child, 'message')
  const [template] = agents(1, 9)
  const times: number[] = []
  for (let index = 0; index < rounds * 4; index++) {
    const started = now()
    await app.agentRegistry.register({ ...template!, agent_id: `watched-${index}` })
    const [last] = await once(child, 'message') as [number]
    times.push(last - started)
    await new Promise(resolve => setTimeout(resolve, 300))
  }
  child.kill()
  const slowest = Math.max(...times)
  return [{
    name: `one change with ${population.toLocaleString('en')} agents reaches the last of ${watchers.toLocaleString('en')} watchers`,
    ours: `median ${median(times).toFixed(0)} ms, slowest ${slowest.toFixed(0)} ms`,
    peer: '–',
    ratio: '–',
    goal: '< 150 ms',
    met: slowest < 150,
    figures: [cost('last watcher, median', 'ms', median(times)), cost('last watcher, slowest', 'ms', slowest)]
  }]
}
