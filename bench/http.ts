// Requests a second of each endpoint, against bare Fastify that does the same work on the wire.
import { agents } from './corpus.js'
import { compare, cost, figuresOf, round, rounds, show, type Load, type Result, type Row, Server } from './rounds.js'

const row = (name: string, { ours, peer, ratio }: Awaited<ReturnType<typeof compare>>, goal: number): Row =>
  ({ name, ours: show(ours), peer: show(peer), ratio: ratio.toFixed(2), goal: `≥ ${goal}`, met: ratio >= goal, figures: figuresOf(name, ours) })

const showCpu = ({ cpuUs }: Result) => `${cpuUs.toFixed(1)} µs CPU`

const registrationsPerRound = 6000
const registrationsPerGrowthRound = 2500
const tokens = String((rounds + 1) * registrationsPerRound + (rounds + 1) * registrationsPerGrowthRound)

/** Registrations of agents that are new each time, each with a token of its own. */
function registrations (server: Server, amount = registrationsPerRound): Load {
  const tokens = server.details.tokens as string[]
  const bodies = Array.from(agents(tokens.length, 2), (agent, index) => JSON.stringify({ ...agent, agent_id: `new-agent-${index}` }))
  return {
    path: '/agents/register',
    method: 'POST',
    amount,
    next () {
      const at = used(server)
      return { headers: { 'content-type': 'application/json', authorization: `Bearer ${tokens[at]}` }, body: bodies[at] }
    }
  }
}

/** Has indexed what was registered so far: each search takes a thousand of what waits. */
async function settle ({ url }: Server): Promise<void> {
  const headers = { 'content-type': 'application/json' }
  for (let index = 0; index < 80; index++) await fetch(`${url}/public/search`, { method: 'POST', headers, body: '{"query":"ready"}' })
}

const uses = new Map<Server, number>()

/** Number of the next token of a server that was not used. */
function used (server: Server): number {
  const next = uses.get(server) ?? 0
  uses.set(server, next + 1)
  return next
}

export async function http (): Promise<Row[]> {
  const ours = await Server.start('./servers.js', ['ours', '1000', tokens])
  const full = await Server.start('./servers.js', ['ours', '50000', tokens])
  const bare = await Server.start('./servers.js', ['bare', ours.url, tokens])
  const authorization = `Bearer ${ours.details.token}`
  const bareToken = `Bearer ${bare.details.token}`
  const rows: Row[] = []

  await round(ours, registrations(ours))
  await round(bare, registrations(bare))
  rows.push(row('registration', await compare(ours, registrations(ours), bare, registrations(bare)), 0.5))
  await round(full, registrations(full, registrationsPerGrowthRound))
  const growth = await compare(full, registrations(full, registrationsPerGrowthRound), ours, registrations(ours, registrationsPerGrowthRound))
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
  await settle(ours)
  const heartbeat = { path: `/agents/${ours.details.agentId}/heartbeat`, method: 'POST' as const }
  rows.push(row('heartbeat', await compare(ours, { ...heartbeat, headers: { authorization } }, bare, { ...heartbeat, headers: { authorization: bareToken } }), 0.8))
  rows.push(row('GET /public/discover?limit=50', await compare(ours, { path: '/public/discover?limit=50' }, bare, { path: '/constant/discover' }), 0.65))
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
