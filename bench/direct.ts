// How long a message takes from one agent to another and the answer back, when nobody else says anything.
import { Contestant, interleave, number } from './contest.js'
import { agents } from './corpus.js'
import type { PairWish, Talked, TalkWish } from './pair.js'
import { cost, seconds, type Row } from './rounds.js'
import type { OurSetup } from './socket-ours.js'
import type { ServerKind } from './socket-server.js'
import { median } from './statistics.js'

const goal = 1.5
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

const show = ({ p50, p99, cpuUs }: ReturnType<typeof middle>) => `p50 ${p50.toFixed(3)} ms, p99 ${p99.toFixed(3)} ms, ${number(cpuUs)} µs CPU`

export async function direct (): Promise<Row[]> {
  const ours = await start('ours')
  const peer = await start('ws, relay by id')
  const results = await interleave([ours, peer], talk)
  const [a, b] = [middle(results.get(ours)!), middle(results.get(peer)!)]
  for (const each of [ours, peer]) each.stop()
  const ratio = a.p50 / b.p50
  return [{
    name: `direct: a message of ${dataBytes} bytes from agent to agent and one back`,
    ours: show(a),
    peer: `${peer.name}: ${show(b)}`,
    ratio: ratio.toFixed(2),
    goal: `p50 ≤ ${goal}`,
    met: ratio <= goal,
    figures: [cost('round trip, p50', 'ms', a.p50), cost('round trip, p99', 'ms', a.p99), cost('round trip, CPU', 'µs', a.cpuUs)],
    chart: {
      file: 'direct',
      title: 'From agent to agent and back, median',
      unit: 'ms',
      bars: [{ label: 'ours', value: a.p50, isOurs: true }, { label: peer.name, value: b.p50 }],
      goal: { value: goal * b.p50, label: `goal: ${goal} × the relay` }
    }
  }]
}
