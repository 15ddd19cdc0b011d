// Memory of an idle authenticated connection, against one that is only open.
import { cost, rounds, type Row } from './report.js'
import type { OurSetup } from './socket-ours.js'
import { median } from './statistics.js'
import { Target } from './targets.js'

const connections = 5000
/** Opened and closed first, so that the server has allocated what it needs once. Few, since their memory is reused. */
const warmUp = 100
const maxRatio = 1.3
const maxKb = 14

const setup: OurSetup = {
  agents: connections,
  options: {
    agentsWs: { maxConnections: connections },
    sockets: { maxUnauthenticated: connections, maxUnauthenticatedPerAddress: connections },
    admission: { upgradesPerSecond: connections, burst: 2 * connections }
  }
}

/** Kilobytes of RSS for each connection, in a process that has served others before. */
async function kilobytes (start: () => Promise<Target>): Promise<number> {
  const target = await start()
  const { server, clients } = target
  const tokens = server.details.tokens as string[] | undefined
  await target.open(warmUp, tokens)
  await clients.request('destroy')
  const empty = await server.request<number>('rss')
  await target.open(connections, tokens)
  const full = await server.request<number>('rss')
  target.stop()
  return (full - empty) / connections / 1024
}

const show = (kb: number) => `${kb.toFixed(1)} KB each`

export async function idleMemory (): Promise<Row[]> {
  const ours: number[] = []
  const bare: number[] = []
  for (let index = 0; index < rounds; index++) {
    const [a, b] = await Promise.all([
      kilobytes(() => Target.start('ours', setup, 'idle')),
      kilobytes(() => Target.start('bare route', '', 'plain'))
    ])
    ours.push(a)
    bare.push(b)
  }
  const [a, b] = [median(ours), median(bare)]
  return [{
    name: `RSS of ${connections.toLocaleString('en')} idle connections with a token`,
    ours: show(a),
    peer: `bare route: ${show(b)}`,
    ratio: (a / b).toFixed(2),
    goal: `≤ ${maxRatio}, ≤ ${maxKb} KB`,
    met: a / b <= maxRatio && a <= maxKb,
    figures: [cost('RSS per connection', 'KB', a)],
    chart: {
      file: 'idle-memory',
      title: `RSS per idle connection, of ${connections.toLocaleString('en')}`,
      unit: 'KB',
      bars: [{ label: 'ours, authenticated', value: a, isOurs: true }, { label: 'bare route', value: b }],
      goal: { value: Math.min(maxKb, maxRatio * b), label: `goal: ${maxRatio} × the route, ${maxKb} KB at most` }
    }
  }]
}
