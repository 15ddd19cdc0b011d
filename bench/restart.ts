// A registry that restarts without data: how long until all agents are alive again, and the event loop delay meanwhile.
import { Agent, request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { BenchProcess } from './bench-process.js'
import { cost, type Row } from './report.js'
import { agents } from './sample-data.js'

const population = 20_000
const everyMs = 20_000
const connections = new Agent({ keepAlive: true, maxSockets: 64 })

interface Response { status: number, retryAfterMs: number }

function call (port: number, path: string, token: string, body?: string): Promise<Response> {
  return new Promise(resolve => {
    const bodyHeaders = body && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }
    const headers = { authorization: `Bearer ${token}`, ...bodyHeaders }
    const sent = request({ agent: connections, host: '127.0.0.1', port, path, method: 'POST', headers }, response => {
      const retryAfterMs = Number(response.headers['retry-after'] ?? 0) * 1000
      response.resume().on('end', () => resolve({ status: response.statusCode!, retryAfterMs }))
    })
    sent.on('error', () => resolve({ status: 0, retryAfterMs: 1000 }))
    sent.end(body)
  })
}

/** A typical agent: it sends heartbeats with jitter, registers when it is unknown, and waits for Retry-After. */
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

async function aliveAt (server: BenchProcess): Promise<number> {
  const response = await fetch(`${server.url}/public/stats`)
  return (await response.json() as { alive_agents: number }).alive_agents
}

export async function restart (): Promise<Row[]> {
  // Both registries have the same secret, so the tokens of the first are valid for the second.
  const before = await BenchProcess.start('./servers.js', ['ours', String(population), '0'])
  const tokens = before.details.ownTokens as string[]
  await before.close()
  const registrations = [...agents(population, 1)]
  const after = await BenchProcess.start('./servers.js', ['ours', '0', '0'])
  await after.request('loop')
  const started = performance.now()
  let isOver = false
  const running = registrations.map((agent, index) =>
    live(after.port, tokens[index]!, JSON.stringify(agent), agent.agent_id, () => isOver))
  while (await aliveAt(after) < population) await sleep(200)
  const seconds = (performance.now() - started) / 1000
  const loop = await after.request<{ p99: number, max: number }>('loop')
  isOver = true
  after.stop()
  connections.destroy()
  Promise.allSettled(running)
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
