// Text search over many agents, one query at a time.
import fastify from 'fastify'
import agentRegistry from 'fastify-agent-registry'
import { cost, type Row } from './report.js'
import { agents, queries } from './sample-data.js'
import { percentile } from './statistics.js'

const queryCount = 2000

export async function search (population: number): Promise<Row[]> {
  const app = fastify()
  await app.register(agentRegistry, { allowedAgentTypes: ['*'], lease: { durationMs: 3_600_000 } })
  for (const agent of agents(population, 1)) await app.agentRegistry.register(agent)
  const find = async (query: string) => {
    const started = performance.now()
    await app.agentRegistry.search({ query: query.slice(0, 1000), min_similarity: 0 })
    return performance.now() - started
  }
  // These queries complete the index, which is filled in slices after the writes, and warm up the code.
  for (const query of queries(200, 1)) await find(query)
  const times: number[] = []
  for (const query of queries(queryCount, 2)) times.push(await find(query))
  const long = [...queries(400, 3)].join(' ').slice(0, 1000)
  const longMs = Math.max(...await Promise.all([find(long)]), await find(long), await find(long))
  const [p50, p99] = [percentile(times, 0.5), percentile(times, 0.99)]
  return [
    {
      name: `search over ${population.toLocaleString('en')} agents, ${queryCount} queries`,
      ours: `p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms`,
      peer: '–',
      ratio: '–',
      goal: 'p50 < 5 ms, p99 < 50 ms',
      met: p50 < 5 && p99 < 50,
      figures: [cost('query, p50', 'ms', p50), cost('query, p99', 'ms', p99)]
    },
    {
      name: 'a query of 1,000 characters',
      ours: `${longMs.toFixed(1)} ms`,
      peer: '–',
      ratio: '–',
      goal: '< 100 ms',
      met: longMs < 100,
      figures: [cost('query of 1,000 characters', 'ms', longMs)]
    }
  ]
}
