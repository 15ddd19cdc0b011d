// A fleet whose registry restarts and remembers nobody: how long until all are alive again, and how busy it is meanwhile.
import { Agent, request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { agents } from './corpus.js'
import { cost, type Row, Server } from './rounds.js'

const population = 20_000
const everyMs = 20_000
const connections = new Agent({ keepAlive: true, maxSockets: 64 })

interface Answer { status: number, retryAfterMs: number }

function call (port: number, path: string, token: string, body?: string): Promise<Answer> {
  return new Promise(resolve => {
    const headers = { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }) }
    const sent = request({ agent: connections, host: '127.0.0.1', port, path, method: 'POST', headers }, answer => {
      answer.resume().on('end', () => resolve({ status: answer.statusCode!, retryAfterMs: Number(answer.headers['retry-after'] ?? 0) * 1000 }))
    })
    sent.on('error', () => resolve({ status: 0, retryAfterMs: 1000 }))
    sent.end(body)
  })
}

/** An agent as clients write them: it beats with jitter, registers when it is not known, and waits when it is told to. */
async function live (port: number, token: string, body: string, id: string, isOver: () => boolean): Promise<void> {
  await sleep(Math.random() * everyMs)
  while (!isOver()) {
    const beat = await call(port, `/agents/${id}/heartbeat`, token)
    if (beat.status === 200) await sleep(everyMs * (0.8 + 0.4 * Math.random()))
    else if (beat.status === 404) await register(port, token, body)
    else await sleep(beat.retryAfterMs * (1 + Math.random()))
  }
}

async function register (port: number, token: string, body: string): Promise<void> {
  const { status, retryAfterMs } = await call(port, '/agents/register', token, body)
  if (status !== 200) await sleep(Math.max(500, retryAfterMs) * (1 + Math.random()))
}

async function aliveAt (server: Server): Promise<number> {
  const answer = await fetch(`${server.url}/public/stats`)
  return (await answer.json() as { alive_agents: number }).alive_agents
}

export async function restart (): Promise<Row[]> {
  // Tokens that outlive the registry that gave them: the secret is the same.
  const before = await Server.start('./servers.js', ['ours', String(population), '0'])
  const tokens = before.details.ownTokens as string[]
  await before.end()
  const registrations = [...agents(population, 1)]
  const after = await Server.start('./servers.js', ['ours', '0', '0'])
  await after.ask('loop')
  const started = performance.now()
  let isOver = false
  const fleet = registrations.map((agent, index) => live(after.port, tokens[index]!, JSON.stringify(agent), agent.agent_id, () => isOver))
  while (await aliveAt(after) < population) await sleep(200)
  const seconds = (performance.now() - started) / 1000
  const loop = await after.ask<{ p99: number, max: number }>('loop')
  isOver = true
  after.stop()
  connections.destroy()
  Promise.allSettled(fleet)
  return [{
    name: `${population.toLocaleString('en')} agents that beat every ${everyMs / 1000} s find their registry empty`,
    ours: `all alive after ${seconds.toFixed(1)} s; event loop at most ${loop.max.toFixed(0)} ms late, p99 ${loop.p99.toFixed(0)} ms`,
    peer: '–',
    ratio: '–',
    goal: 'event loop < 50 ms',
    met: loop.max < 50,
    figures: [
      cost('all agents alive', 's', seconds),
      cost('event loop delay, longest', 'ms', loop.max),
      cost('event loop delay, p99', 'ms', loop.p99)
    ]
  }]
}
