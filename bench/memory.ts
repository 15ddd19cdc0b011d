// Memory of a registry with many agents, without and with the text index.
import fastify from 'fastify'
import agentRegistry from 'fastify-agent-registry'
import { cost, type Row } from './report.js'
import { agents } from './sample-data.js'

const mb = (bytes: number) => `${(bytes / 1_048_576).toFixed(0)} MB`

export async function settledRss (collections = 5): Promise<number> {
  for (let index = 0; index < collections; index++) {
    globalThis.gc?.()
    await new Promise(resolve => setTimeout(resolve, 200))
  }
  return process.memoryUsage().rss
}

export async function memory (population: number): Promise<Row[]> {
  const app = fastify()
  const withIndex = process.argv[3] === 'index'
  await app.register(agentRegistry, { allowedAgentTypes: ['*'], lease: { durationMs: 3_600_000 }, search: { enabled: withIndex } })
  const empty = await settledRss()
  let bytes = 0
  for (const agent of agents(population, 1)) {
    bytes += JSON.stringify(agent).length
    await app.agentRegistry.register(agent)
  }
  // Each search indexes a thousand agents.
  if (withIndex) {
    for (let indexed = 0; indexed <= population; indexed += 1000) await app.agentRegistry.search({ query: 'ready' })
  }
  const full = await settledRss()
  const agentText = `${population.toLocaleString('en')} agents of ${Math.round(bytes / population)} bytes`
  const name = `RSS with ${agentText}${withIndex ? ', text index included' : ''}`
  return [{
    name,
    ours: `${mb(full)} (empty: ${mb(empty)})`,
    peer: '–',
    ratio: '–',
    goal: withIndex ? 'reported' : '< 450 MB',
    met: withIndex || full < 450 * 1_048_576,
    figures: [cost(`RSS ${withIndex ? 'with' : 'without'} text index`, 'MB', full / 1_048_576)]
  }]
}
