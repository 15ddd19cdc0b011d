// Cost of the stores: the level and the Redis store against the one in memory, in alternating rounds.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { BenchProcess } from './bench-process.js'
import { compare, figuresOf, round, type Compared, type Load, type Result } from './http-load.js'
import { redisCpu, redisMemory, startRedis } from './redis.js'
import { cost, rounds, type Row } from './report.js'
import { newAgentBodies } from './sample-data.js'

const perRound = 3000
const sequential = 300
/** Registrations of all rounds, the first of which is not counted, and those at one connection. */
const tokenCount = (rounds + 2) * perRound + sequential

/** Registrations of new agents, each with a token of its own, and heartbeats of the registered ones. */
class AgentLoad {
  readonly server: BenchProcess
  readonly #tokens: string[]
  readonly #bodies: string[]
  #registered = 0
  #heartbeats = 0

  constructor (server: BenchProcess) {
    this.server = server
    this.#tokens = server.details.tokens as string[]
    this.#bodies = newAgentBodies(this.#tokens.length)
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
        const at = this.#heartbeats++ % this.#registered
        return { path: `/agents/new-agent-${at}/heartbeat`, headers: { authorization: `Bearer ${this.#tokens[at]}` } }
      }
    }
  }
}

function start (population: number, ...storage: string[]): Promise<BenchProcess> {
  return BenchProcess.start('./servers.js', ['ours', String(population), String(tokenCount), ...storage])
}

const show = ({ rate, cpuUs }: Result) => `${Math.round(rate)}/s, ${cpuUs.toFixed(0)} µs CPU`

/** @param goal undefined when the row is only reported */
function row (name: string, { ours, peer, ratio }: Compared, goal: number | undefined): Row {
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

interface Goals { registration: number, heartbeat?: number }

async function against (memory: AgentLoad, other: AgentLoad, name: string, goals: Goals): Promise<Row[]> {
  const connections = name === 'level' ? 16 : 40
  for (const load of [memory, other]) await round(load.server, load.registrations(perRound, connections))
  const loadOf = (each: AgentLoad) => each.registrations(perRound, connections)
  const registration = await compare(other.server, loadOf(other), memory.server, loadOf(memory))
  const heartbeat = await compare(other.server, other.heartbeats(), memory.server, memory.heartbeats())
  const alone = await round(other.server, other.registrations(sequential, 1))
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

/** CPU of Redis per request, in microseconds. */
async function redisCost (url: string, { server }: AgentLoad, load: Load): Promise<number> {
  const before = await redisCpu(url)
  const { requests } = await round(server, load)
  return (await redisCpu(url) - before) / requests
}

async function redisCosts (url: string, load: AgentLoad): Promise<Row> {
  const registration = await redisCost(url, load, load.registrations(perRound, 40))
  const heartbeat = await redisCost(url, load, load.heartbeats())
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

/** Starts a registry on the data that another one has written. */
async function loading (name: string, ...storage: string[]): Promise<Row> {
  const population = 100_000
  const arguments_ = (count: number) => ['ours', String(count), '0', ...storage]
  const first = await BenchProcess.start('./servers.js', arguments_(population))
  await first.close()
  const second = await BenchProcess.start('./servers.js', arguments_(0))
  const seconds = (second.details.startMs as number) / 1000
  await second.close()
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
  for (const [name, ...location] of [['level', join(folder, 'first')], ['redis', redis.url]] as const) {
    const memory = new AgentLoad(await start(1000))
    const other = new AgentLoad(await start(1000, name, ...location))
    rows.push(...await against(memory, other, name, name === 'level' ? { registration: 0.8 } : { registration: 0.7, heartbeat: 0.7 }))
    if (name === 'redis') rows.push(await redisCosts(redis.url, other))
    for (const { server } of [memory, other]) await server.close()
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
