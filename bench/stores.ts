// What a store costs: the level and the Redis store beside the one in memory, in the same rounds.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { agents } from './corpus.js'
import { redisCpu, redisMemory, startRedis } from './redis.js'
import { compare, cost, figuresOf, round, rounds, type Load, type Result, type Row, Server } from './rounds.js'

const perRound = 3000
const singly = 300
/** A round more than is measured, to get warm; as many heartbeats are for agents that these rounds have registered. */
const tokenCount = (rounds + 2) * perRound + singly

/** Registrations of agents that are new each time, each with a token of its own, and heartbeats of those. */
class Fleet {
  readonly server: Server
  readonly #tokens: string[]
  readonly #bodies: string[]
  #registered = 0
  #beaten = 0

  constructor (server: Server) {
    this.server = server
    this.#tokens = server.details.tokens as string[]
    this.#bodies = Array.from(agents(this.#tokens.length, 2), (agent, index) => JSON.stringify({ ...agent, agent_id: `new-agent-${index}` }))
  }

  registrations (amount: number, connections: number): Load {
    return {
      path: '/agents/register',
      method: 'POST',
      amount,
      connections,
      next: () => {
        const at = this.#registered++
        return { headers: { 'content-type': 'application/json', authorization: `Bearer ${this.#tokens[at]}` }, body: this.#bodies[at]! }
      }
    }
  }

  heartbeats (): Load {
    return {
      path: '/',
      method: 'POST',
      next: () => {
        const at = this.#beaten++ % this.#registered
        return { path: `/agents/new-agent-${at}/heartbeat`, headers: { authorization: `Bearer ${this.#tokens[at]}` } }
      }
    }
  }
}

const start = (population: number, ...storage: string[]) => Server.start('./servers.js', ['ours', String(population), String(tokenCount), ...storage])
const show = ({ rate, cpuUs }: Result) => `${Math.round(rate)}/s, ${cpuUs.toFixed(0)} µs CPU`

/** @param goal undefined where nothing is aimed at */
function row (name: string, { ours, peer, ratio }: Awaited<ReturnType<typeof compare>>, goal: number | undefined): Row {
  return {
    name,
    ours: show(ours),
    peer: `memory: ${show(peer)}`,
    ratio: ratio.toFixed(2),
    goal: goal === undefined ? 'reported' : `≥ ${goal}`,
    met: ratio >= (goal ?? 0),
    figures: figuresOf(name, ours)
  }
}

async function against (memory: Fleet, other: Fleet, name: string, goals: { registration: number, heartbeat?: number }): Promise<Row[]> {
  const connections = name === 'level' ? 16 : 40
  for (const fleet of [memory, other]) await round(fleet.server, fleet.registrations(perRound, connections))
  const registration = await compare(other.server, other.registrations(perRound, connections), memory.server, memory.registrations(perRound, connections))
  const heartbeat = await compare(other.server, other.heartbeats(), memory.server, memory.heartbeats())
  const alone = await round(other.server, other.registrations(singly, 1))
  return [
    row(`${name}: registration at ${connections} connections`, registration, goals.registration),
    row(`${name}: heartbeat`, heartbeat, goals.heartbeat),
    {
      name: `${name}: registration at one connection`,
      ours: `p50 ${alone.p50 === 0 ? 'below 1' : alone.p50} ms, mean ${(1000 / alone.rate).toFixed(2)} ms`,
      peer: '–',
      ratio: '–',
      goal: name === 'level' ? 'p50 ≤ 2 ms' : 'reported',
      met: name !== 'level' || alone.p50 <= 2,
      figures: [cost(`${name}: registration at one connection, mean`, 'ms', 1000 / alone.rate)]
    }
  ]
}

/** What a request costs Redis, in microseconds of its CPU. */
async function redisCost (url: string, { server }: Fleet, load: Load): Promise<number> {
  const before = await redisCpu(url)
  const { requests } = await round(server, load)
  return (await redisCpu(url) - before) / requests
}

async function redisCosts (url: string, fleet: Fleet): Promise<Row> {
  const registration = await redisCost(url, fleet, fleet.registrations(perRound, 40))
  const heartbeat = await redisCost(url, fleet, fleet.heartbeats())
  return {
    name: 'redis: CPU of Redis itself',
    ours: `${registration.toFixed(1)} µs a registration, ${heartbeat.toFixed(1)} µs a heartbeat at 40 connections`,
    peer: '–',
    ratio: '–',
    goal: 'reported',
    met: true,
    figures: [cost('redis: registration, CPU of Redis', 'µs', registration), cost('redis: heartbeat, CPU of Redis', 'µs', heartbeat)]
  }
}

/** Starts a registry on what another one has left there. */
async function loading (name: string, ...storage: string[]): Promise<Row> {
  const population = 100_000
  const arguments_ = (count: number) => ['ours', String(count), '0', ...storage]
  const first = await Server.start('./servers.js', arguments_(population))
  await first.end()
  const second = await Server.start('./servers.js', arguments_(0))
  const seconds = (second.details.startMs as number) / 1000
  await second.end()
  return {
    name: `${name}: start with ${population.toLocaleString('en')} agents`,
    ours: `${seconds.toFixed(2)} s`,
    peer: '–',
    ratio: '–',
    goal: '< 3 s',
    met: seconds < 3,
    figures: [cost(`${name}: start`, 's', seconds)]
  }
}

export async function stores (): Promise<Row[]> {
  const redis = await startRedis()
  const folder = mkdtempSync(join(tmpdir(), 'bench-level-'))
  const rows: Row[] = []
  for (const [name, ...place] of [['level', join(folder, 'first')], ['redis', redis.url]] as const) {
    const memory = new Fleet(await start(1000))
    const other = new Fleet(await start(1000, name, ...place))
    rows.push(...await against(memory, other, name, name === 'level' ? { registration: 0.8 } : { registration: 0.7, heartbeat: 0.7 }))
    if (name === 'redis') rows.push(await redisCosts(redis.url, other))
    for (const { server } of [memory, other]) await server.end()
  }
  const emptyRedis = await startRedis()
  rows.push(await loading('level', 'level', join(folder, 'second')), await loading('redis', 'redis', emptyRedis.url))
  const bytes = await redisMemory(emptyRedis.url) / 100_000
  rows.push({
    name: 'redis: memory of Redis',
    ours: `${(bytes / 1024).toFixed(2)} KB an agent, its newest changes included`,
    peer: '–',
    ratio: '–',
    goal: 'reported',
    met: true,
    figures: [cost('redis: memory per agent', 'KB', bytes / 1024)]
  })
  for (const server of [redis, emptyRedis]) await server.stop()
  rmSync(folder, { recursive: true })
  return rows
}
