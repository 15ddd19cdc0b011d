// How many requests by capability get a reply, through one process and through two over Redis.
import type { Chart } from './chart.js'
import { startRedis } from './redis.js'
import { cost, rate, type Figure, type Row } from './report.js'
import {
  dataBytes, high, highText, medians, ourSetup, RequestTarget, showRate, showTimes, single, type RequestResult
} from './request-targets.js'
import type { ServerKind } from './socket-server.js'
import { interleave } from './targets.js'

const secret = 'a secret of more than thirty-two characters'
const maxSingleMs = 3

type Results = ReadonlyMap<ServerKind, RequestResult>

async function runAll (targets: readonly RequestTarget[], concurrency = high): Promise<Results> {
  const results = await interleave(targets, target => target.run(concurrency))
  return new Map(Array.from(results, ([{ name }, all]) => [name, medians(all)]))
}

const rateFigures = (name: string, result: RequestResult): Figure[] =>
  [rate(name, result.rate), cost(`${name}, CPU`, 'µs', result.cpuUs)]

function rateRow (name: string, results: Results, peer: ServerKind, goal: number | undefined): Row {
  const [a, b] = [results.get('ours')!, results.get(peer)!]
  const ratio = a.rate / b.rate
  return {
    name,
    ours: showRate(a),
    peer: `${peer}: ${showRate(b)}`,
    ratio: ratio.toFixed(2),
    goal: goal === undefined ? 'reported' : `≥ ${goal}`,
    met: ratio >= (goal ?? 0)
  }
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
  const targets = [
    await RequestTarget.start('ours', [ourSetup({})], accepts),
    await RequestTarget.start(local.peer, [''], accepts)
  ]
  const results = await runAll(targets)
  for (const target of targets) target.stop()
  const manner = accepts ? 'accepted and replied to' : 'replied to at once'
  const row = {
    ...rateRow(`requests: by capability with ${dataBytes} bytes, ${manner}, ${highText}`, results, local.peer, local.goal),
    figures: rateFigures(manner, results.get('ours')!)
  }
  return accepts ? { ...row, chart: chartOf('requests', local.title, results, local.peer, local.goal) } : row
}

export const requests = async (): Promise<Row[]> => [await inOneProcess(true), await inOneProcess(false)]

const shared = {
  peer: 'ws + ioredis relay',
  pipelining: 'ws + ioredis relay, auto-pipelining',
  goal: 0.5,
  title: 'Requests by capability a second, two processes over Redis'
} as const

/** Each of the relays has a Redis of its own, because their channels have the same names. */
async function startTargets (url: string, otherUrl: string): Promise<RequestTarget[]> {
  const options = { storage: 'redis', redis: { url }, jwt: { secret } } as const
  const relay = (of: string) => [true, false].map(forRequesters => ({ url: of, forRequesters }))
  return [
    await RequestTarget.start('ours', [ourSetup(options), { ...ourSetup(options), agents: 0 }], true),
    await RequestTarget.start(shared.peer, relay(url), true),
    await RequestTarget.start(shared.pipelining, relay(otherUrl), true)
  ]
}

export async function requestsOverRedis (): Promise<Row[]> {
  const [redis, other] = [await startRedis(), await startRedis()]
  const targets = await startTargets(redis.url, other.url)
  const results = await runAll(targets)
  const singleResults = await runAll(targets, single)
  for (const target of targets) target.stop()
  for (const each of [redis, other]) await each.stop()
  const name = `requests over Redis: by capability from one process to another, ${highText}`
  const [ours, peer] = [singleResults.get('ours')!, singleResults.get(shared.peer)!]
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
      goal: `p50 ≤ ${maxSingleMs} ms`,
      met: ours.p50 <= maxSingleMs,
      figures: [cost('one after the other, p50', 'ms', ours.p50), cost('one after the other, p99', 'ms', ours.p99)]
    }
  ]
}
