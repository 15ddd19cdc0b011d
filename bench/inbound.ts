// How many requests per second are acknowledged, when clients keep many open on each connection.
import type { PipelineCommand } from './pipeline.js'
import { cost, number, rate, seconds, us, type Row } from './report.js'
import type { OurSetup } from './socket-ours.js'
import { median } from './statistics.js'
import { interleave, Target } from './targets.js'

const connections = 50
const window = 64
const goal = 1.5

const setup: OurSetup = {
  options: {
    // The server sends nothing but acks.
    publicWs: {
      maxConnections: connections,
      messagesPerSecond: 1e9,
      burst: 1e9,
      intervalMs: 3_600_000,
      pingIntervalMs: 3_600_000
    }
  }
}

interface Inbound { rate: number, cpuUs: number }

async function load ({ server, clients }: Target): Promise<Inbound> {
  const command: PipelineCommand = { window, ms: seconds * 1000 }
  const before = await server.cpu()
  const { acks, ms } = await clients.request<{ acks: number, ms: number }>({ ...command })
  return { rate: acks / ms * 1000, cpuUs: (await server.cpu() - before) / acks }
}

const medians = (results: readonly Inbound[]): Inbound =>
  ({ rate: median(results.map(({ rate }) => rate)), cpuUs: median(results.map(({ cpuUs }) => cpuUs)) })

const show = ({ rate, cpuUs }: Inbound) => `${number(rate)}/s, ${us(cpuUs)} CPU`

export async function inbound (): Promise<Row[]> {
  const ours = await Target.start('ours', setup, 'requester')
  const peer = await Target.start('ws, parse and answer', '', 'plain')
  for (const each of [ours, peer]) await each.open(connections)
  const results = await interleave([ours, peer], load)
  const [a, b] = [medians(results.get(ours)!), medians(results.get(peer)!)]
  for (const each of [ours, peer]) each.stop()
  const ratio = a.rate / b.rate
  return [{
    name: `requests with an ack, ${connections} connections with ${window} under way each`,
    ours: show(a),
    peer: `${peer.name}: ${show(b)}`,
    ratio: ratio.toFixed(2),
    goal: `≥ ${goal.toFixed(1)}`,
    met: ratio >= goal,
    figures: [rate('requests', a.rate), cost('requests, CPU', 'µs', a.cpuUs)],
    chart: {
      file: 'inbound',
      title: `Requests with an ack per second, ${connections} connections with ${window} under way each`,
      unit: '/s',
      bars: [{ label: 'ours', value: a.rate, isOurs: true }, { label: peer.name, value: b.rate }],
      goal: { value: goal * b.rate, label: `goal: ${goal} × ws` }
    }
  }]
}
