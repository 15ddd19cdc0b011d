// Requests per second of each endpoint, against bare Fastify with the same work on the wire.
import { BenchProcess } from './bench-process.js'
import { compare, figuresOf, round, show, type Compared, type Load, type Result } from './http-load.js'
import { cost, rounds, type Row } from './report.js'
import { newAgentBodies } from './sample-data.js'

function row (name: string, { ours, peer, ratio }: Compared, goal: number): Row {
  return {
    name,
    ours: show(ours),
    peer: show(peer),
    ratio: ratio.toFixed(2),
    goal: `≥ ${goal}`,
    met: ratio >= goal,
    figures: figuresOf(name, ours)
  }
}

const showCpu = ({ cpuUs }: Result) => `${cpuUs.toFixed(1)} µs CPU`

const registrationsPerRound = 6000
const registrationsPerGrowthRound = 2500
const tokens = String((rounds + 1) * registrationsPerRound + (rounds + 1) * registrationsPerGrowthRound)

/** Registrations of new agents, each with a token of its own. */
function registrations (server: BenchProcess, amount = registrationsPerRound): Load {
  const tokens = server.details.tokens as string[]
  const bodies = newAgentBodies(tokens.length)
  return {
    path: '/agents/register',
    method: 'POST',
    amount,
    next () {
      const at = nextToken(server)
      return { headers: { 'content-type': 'application/json', authorization: `Bearer ${tokens[at]}` }, body: bodies[at] }
    }
  }
}

/** Indexes all agents that are registered so far: each search indexes a thousand of them. */
async function indexAll ({ url }: BenchProcess): Promise<void> {
  const headers = { 'content-type': 'application/json' }
  for (let index = 0; index < 80; index++) await fetch(`${url}/public/search`, { method: 'POST', headers, body: '{"query":"ready"}' })
}

const usedTokens = new Map<BenchProcess, number>()

/** Index of the next unused token of a server. */
function nextToken (server: BenchProcess): number {
  const next = usedTokens.get(server) ?? 0
  usedTokens.set(server, next + 1)
  return next
}

export async function http (): Promise<Row[]> {
  const ours = await BenchProcess.start('./servers.js', ['ours', '1000', tokens])
  const full = await BenchProcess.start('./servers.js', ['ours', '50000', tokens])
  const bare = await BenchProcess.start('./servers.js', ['bare', ours.url, tokens])
  const rows: Row[] = []

  await round(ours, registrations(ours))
  await round(bare, registrations(bare))
  rows.push(row('registration', await compare(ours, registrations(ours), bare, registrations(bare)), 0.5))
  await round(full, registrations(full, registrationsPerGrowthRound))
  const growthLoad = (server: BenchProcess) => registrations(server, registrationsPerGrowthRound)
  const growth = await compare(full, growthLoad(full), ours, growthLoad(ours))
  const ratio = growth.ours.cpuUs / growth.peer.cpuUs
  rows.push({
    name: 'CPU of a registration with 50,000 agents against 1,000',
    ours: showCpu(growth.ours),
    peer: showCpu(growth.peer),
    ratio: ratio.toFixed(2),
    goal: '≤ 1.20',
    met: ratio <= 1.2,
    figures: [cost('registration with 50,000 agents, CPU', 'µs', growth.ours.cpuUs)]
  })
  await indexAll(ours)
  const heartbeat = (token: unknown): Load =>
    ({ path: `/agents/${ours.details.agentId}/heartbeat`, method: 'POST', headers: { authorization: `Bearer ${token}` } })
  const heartbeats = await compare(ours, heartbeat(ours.details.token), bare, heartbeat(bare.details.token))
  rows.push(row('heartbeat', heartbeats, 0.8))
  const discover = await compare(ours, { path: '/public/discover?limit=50' }, bare, { path: '/constant/discover' })
  rows.push(row('GET /public/discover?limit=50', discover, 0.65))
  rows.push(row('GET /public/stats', await compare(ours, { path: '/public/stats' }, bare, { path: '/constant/stats' }), 0.75))
  rows.push(row('GET /health', await compare(ours, { path: '/health' }, bare, { path: '/constant/health' }), 0.75))
  const hooks = await compare(ours, { path: '/health/live' }, bare, { path: '/no-hooks' })
  const extra = hooks.ours.cpuUs - hooks.peer.cpuUs
  rows.push({
    name: 'our hooks against bare Fastify',
    ours: show(hooks.ours),
    peer: show(hooks.peer),
    ratio: `${extra.toFixed(1)} µs`,
    goal: '≤ 15 µs a request',
    met: extra <= 15,
    figures: figuresOf('GET /health/live', hooks.ours)
  })
  for (const server of [ours, full, bare]) server.stop()
  return rows
}
