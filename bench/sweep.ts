// Duration of a sweep over many agents whose leases have not ended.
import { MemoryAgentStore } from 'fastify-agent-registry'
import { cost, rounds, type Row } from './report.js'
import { agents } from './sample-data.js'
import { median } from './statistics.js'

/** Creates a store with `population` live agents and a manual clock. */
async function storeWith (population: number) {
  let now = 1_000_000_000_000
  const store = new MemoryAgentStore({ leaseMs: 3_600_000, retentionMs: 3_600_000, clock: () => now })
  await store.open({ changed () {}, touched () {}, reloaded () {}, availability () {} })
  for (const agent of agents(population, 1)) {
    const { agent_type: type, capabilities, agent_id: id } = agent
    const content = { body: JSON.stringify(agent), type, capabilities }
    await store.register({ id, content, claim: { kind: 'owner' }, maxAgents: Infinity })
  }
  return { store, advance: (ms: number) => { now += ms } }
}

/** Measures sweeps that find no ended lease. */
export async function sweep (population: number): Promise<Row> {
  const { store, advance } = await storeWith(population)
  const times: number[] = []
  for (let index = 0; index < rounds * 20; index++) {
    advance(500)
    const started = performance.now()
    await store.expire({ cleanup: index % 20 === 0 })
    times.push(performance.now() - started)
  }
  const ms = Math.max(...times)
  const agentCount = population.toLocaleString('en')
  return {
    name: `sweep over ${agentCount} live agents (the slowest of ${times.length})`,
    ours: `${ms.toFixed(3)} ms, median ${median(times).toFixed(4)} ms`,
    peer: '–',
    ratio: '–',
    goal: '< 1 ms',
    met: ms < 1,
    figures: [cost(`${agentCount} agents, slowest`, 'ms', ms), cost(`${agentCount} agents, median`, 'ms', median(times))]
  }
}
