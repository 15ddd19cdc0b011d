// Round-trip time of a direct message from one agent to another and back, without other traffic.
import { cost, number, seconds, type Row } from './report.js'
import type { OpenCommand, RunCommand, RunResult } from './round-trip-load.js'
import { agents } from './sample-data.js'
import type { OurSetup } from './socket-ours.js'
import type { ServerKind } from './socket-server.js'
import { median } from './statistics.js'
import { interleave, Target } from './targets.js'

const goal = 1.5
const dataBytes = 100
const data = '-'.repeat(dataBytes - 2)

const setup: OurSetup = { agents: 2, options: { agentsWs: { pingIntervalMs: 600_000, messagesPerSecond: 1e9, burst: 1e9 } } }

async function start (name: ServerKind): Promise<Target> {
  const isOurs = name === 'ours'
  const target = await Target.start(name, isOurs ? setup : '', isOurs ? 'idle' : 'token', './round-trip-load.js')
  const names = Array.from(agents(2, 1), agent => agent.agent_id) as [string, string]
  const command: OpenCommand = { names, tokens: isOurs ? target.server.details.tokens as [string, string] : names, data }
  await target.clients.request({ ...command })
  return target
}

interface RoundTrips extends RunResult { cpuUs: number }

async function exchange ({ server, clients }: Target): Promise<RoundTrips> {
  const command: RunCommand = { ms: seconds * 500 }
  const before = await server.cpu()
  const result = await clients.request<RunResult>({ ...command })
  return { ...result, cpuUs: (await server.cpu() - before) / result.count }
}

const medians = (results: readonly RoundTrips[]) => ({
  p50: median(results.map(({ p50 }) => p50)),
  p99: median(results.map(({ p99 }) => p99)),
  cpuUs: median(results.map(({ cpuUs }) => cpuUs))
})

const show = ({ p50, p99, cpuUs }: ReturnType<typeof medians>) =>
  `p50 ${p50.toFixed(3)} ms, p99 ${p99.toFixed(3)} ms, ${number(cpuUs)} µs CPU`

export async function direct (): Promise<Row[]> {
  const ours = await start('ours')
  const peer = await start('ws, relay by id')
  const results = await interleave([ours, peer], exchange)
  const [a, b] = [medians(results.get(ours)!), medians(results.get(peer)!)]
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
