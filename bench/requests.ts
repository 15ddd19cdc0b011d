// How many requests by capability get their reply, through one process and through two that are one over Redis.
import type { Chart } from './chart.js'
import { interleave } from './contest.js'
import { startRedis } from './redis.js'
import { busy, dataBytes, light, middle, ourSetup, paceText, showRate, showTimes, Team, type Flow } from './request-teams.js'
import { cost, rate, type Figure, type Row } from './rounds.js'
import type { ServerKind } from './socket-server.js'

const secret = 'a secret of more than thirty-two characters'
const mostLightMs = 3

type Results = ReadonlyMap<ServerKind, Flow>

async function runAll (teams: readonly Team[], pace = busy): Promise<Results> {
  const results = await interleave(teams, team => team.run(pace))
  return new Map(Array.from(results, ([{ name }, flows]) => [name, middle(flows)]))
}

const rateFigures = (name: string, flow: Flow): Figure[] => [rate(name, flow.rate), cost(`${name}, CPU`, 'µs', flow.cpuUs)]

function rateRow (name: string, results: Results, peer: ServerKind, goal: number | undefined): Row {
  const [a, b] = [results.get('ours')!, results.get(peer)!]
  const ratio = a.rate / b.rate
  return { name, ours: showRate(a), peer: `${peer}: ${showRate(b)}`, ratio: ratio.toFixed(2), goal: goal === undefined ? 'reported' : `≥ ${goal}`, met: ratio >= (goal ?? 0) }
}

function chartOf (file: string, title: string, results: Results, peer: ServerKind, goal: number): Chart {
  return {
    file,
    title,
    unit: '/s',
    bars: Array.from(results, ([label, { rate }]) => ({ label, value: rate, isOurs: label === 'ours' })),
    goal: { value: goal * results.get(peer)!.rate, label: `goal: ${goal} × ${peer}` }
  }
}

const local = { peer: 'ws, relay that matches ids', goal: 0.4, title: 'Requests by capability a second, one process' } as const

async function inOneProcess (accepts: boolean): Promise<Row> {
  const teams = [await Team.start('ours', [ourSetup({})], accepts), await Team.start(local.peer, [''], accepts)]
  const results = await runAll(teams)
  for (const team of teams) team.stop()
  const manner = accepts ? 'accepted and replied to' : 'replied to at once'
  const row = {
    ...rateRow(`requests: by capability with ${dataBytes} bytes, ${manner}, ${paceText}`, results, local.peer, local.goal),
    figures: rateFigures(manner, results.get('ours')!)
  }
  return accepts ? { ...row, chart: chartOf('requests', local.title, results, local.peer, local.goal) } : row
}

export const requests = async (): Promise<Row[]> => [await inOneProcess(true), await inOneProcess(false)]

const shared = { peer: 'ws + ioredis relay', pipelining: 'ws + ioredis relay, auto-pipelining', goal: 0.5, title: 'Requests by capability a second, two processes over Redis' } as const

/** Each of the relays has a Redis database of its own: its channels have the same names. */
async function startTeams (url: string, otherUrl: string): Promise<Team[]> {
  const options = { storage: 'redis', redis: { url }, jwt: { secret } } as const
  const relay = (of: string) => [true, false].map(isAsking => ({ url: of, isAsking }))
  return [
    await Team.start('ours', [ourSetup(options), { ...ourSetup(options), agents: 0 }], true),
    await Team.start(shared.peer, relay(url), true),
    await Team.start(shared.pipelining, relay(otherUrl), true)
  ]
}

export async function requestsOverRedis (): Promise<Row[]> {
  const [redis, other] = [await startRedis(), await startRedis()]
  const teams = await startTeams(redis.url, other.url)
  const results = await runAll(teams)
  const few = await runAll(teams, light)
  for (const team of teams) team.stop()
  for (const each of [redis, other]) await each.stop()
  const name = `requests over Redis: by capability from one process to another, ${paceText}`
  const [ours, peer] = [few.get('ours')!, few.get(shared.peer)!]
  return [
    {
      ...rateRow(name, results, shared.peer, shared.goal),
      chart: chartOf('requests-redis', shared.title, results, shared.peer, shared.goal),
      figures: rateFigures('by capability', results.get('ours')!)
    },
    rateRow(name, results, shared.pipelining, undefined),
    {
      name: 'requests over Redis: one after the other',
      ours: showTimes(ours),
      peer: `${shared.peer}: ${showTimes(peer)}`,
      ratio: (ours.p50 / peer.p50).toFixed(2),
      goal: `p50 ≤ ${mostLightMs} ms`,
      met: ours.p50 <= mostLightMs,
      figures: [cost('one after the other, p50', 'ms', ours.p50), cost('one after the other, p99', 'ms', ours.p99)]
    }
  ]
}
