// How long a message takes from one agent to another and the answer back, when nobody else says anything.
import { Contestant, interleave, number } from './contest.js'
import { agents } from './corpus.js'
import type { PairWish, Talked, TalkWish } from './pair.js'
import { median, seconds, type Row } from './rounds.js'
import type { OurSetup } from './socket-ours.js'
import type { ServerKind } from './socket-server.js'

const goal = 1.5
const peer = 'ws, relay by id' satisfies ServerKind
const dataBytes = 100
const data = '-'.repeat(dataBytes - 2)

const setup: OurSetup = { agents: 2, options: { agentsWs: { pingIntervalMs: 600_000, messagesPerSecond: 1e9, burst: 1e9 } } }

async function start (name: ServerKind): Promise<Contestant> {
  const isOurs = name === 'ours'
  const contestant = await Contestant.start(name, isOurs ? setup : '', isOurs ? 'idle' : 'token', './pair.js')
  const names = Array.from(agents(2, 1), agent => agent.agent_id) as [string, string]
  const wish: PairWish = { names, tokens: isOurs ? contestant.server.details.tokens as [string, string] : names, data }
  await contestant.crowd.ask({ ...wish })
  return contestant
}

interface Trip extends Talked { cpuUs: number }

async function talk ({ server, crowd }: Contestant): Promise<Trip> {
  const wish: TalkWish = { talk: seconds * 500 }
  const before = await server.cpu()
  const talked = await crowd.ask<Talked>({ ...wish })
  return { ...talked, cpuUs: (await server.cpu() - before) / talked.count }
}

const middle = (results: readonly Trip[]) => ({
  p50: median(results.map(({ p50 }) => p50)),
  p99: median(results.map(({ p99 }) => p99)),
  cpuUs: median(results.map(({ cpuUs }) => cpuUs))
})

type Middle = ReturnType<typeof middle>

const show = ({ p50, p99, cpuUs }: Middle) => `p50 ${p50.toFixed(3)} ms, p99 ${p99.toFixed(3)} ms, ${number(cpuUs)} µs CPU`

function rowOf (a: Middle, b: Middle): Row {
  const ratio = a.p50 / b.p50
  return {
    name: `direct: a message of ${dataBytes} bytes from agent to agent and one back`,
    ours: show(a),
    peer: `${peer}: ${show(b)}`,
    ratio: ratio.toFixed(2),
    goal: `p50 ≤ ${goal}`,
    met: ratio <= goal
  }
}

export async function direct (): Promise<Row[]> {
  const all: Contestant[] = []
  for (const name of ['ours', peer] as const) all.push(await start(name))
  const results = await interleave(all, talk)
  for (const each of all) each.stop()
  const [ours, relay] = Array.from(results.values(), middle) as [Middle, Middle]
  const bars = all.map(({ name }, index) => ({ label: name, value: [ours, relay][index]!.p50, isOurs: index === 0 }))
  return [{ ...rowOf(ours, relay), chart: { file: 'direct', title: 'From agent to agent and back, median', unit: 'ms', bars, goal: { value: goal * relay.p50, label: `goal: ${goal} × the relay` } } }]
}
