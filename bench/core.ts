// The registry by itself: sweeps, memory, search. Each measurement runs in a process of its own.
import { MemoryAgentStore } from 'fastify-agent-registry'
import { agents } from './corpus.js'
import { cost, rounds, type Row } from './rounds.js'
import { median } from './statistics.js'

/** A store with `population` live agents whose clock is ours to move. */
async function storeWith (population: number) {
  let now = 1_000_000_000_000
  const store = new MemoryAgentStore({ leaseMs: 3_600_000, retentionMs: 3_600_000, clock: () => now })
  await store.open({ changed () {}, touched () {}, reloaded () {}, availability () {} })
  for (const agent of agents(population, 1)) {
    const { agent_type: type, capabilities, agent_id: id } = agent
    await store.register({ id, content: { body: JSON.stringify(agent), type, capabilities }, claim: { kind: 'owner' }, maxAgents: Infinity })
  }
  return { store, advance: (ms: number) => { now += ms } }
}

/** Milliseconds of a sweep that finds nothing to take. */
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
