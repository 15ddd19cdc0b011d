// What an idle connection takes that has said who it is, against one that only exists.
import { Contestant } from './contest.js'
import { cost, rounds, type Row } from './rounds.js'
import type { OurSetup } from './socket-ours.js'
import { median } from './statistics.js'

const connections = 5000
/** Opened and closed before, so that what a server needs once is there; few, since their memory is used again. */
const before = 100
const mostRatio = 1.3
const mostKb = 14

const setup: OurSetup = {
  agents: connections,
  options: {
    agentsWs: { maxConnections: connections },
    sockets: { maxUnauthenticated: connections, maxUnauthenticatedPerAddress: connections },
    admission: { upgradesPerSecond: connections, burst: 2 * connections }
  }
}

/** Kilobytes for each connection, in a process that has served others before. */
async function kilobytes (start: () => Promise<Contestant>): Promise<number> {
  const contestant = await start()
  const { server, crowd } = contestant
  const tokens = server.details.tokens as string[] | undefined
  await contestant.open(before, tokens)
  await crowd.ask('destroy')
  const empty = await server.ask<number>('rss')
  await contestant.open(connections, tokens)
  const full = await server.ask<number>('rss')
  contestant.stop()
  return (full - empty) / connections / 1024
}

const show = (kb: number) => `${kb.toFixed(1)} KB each`

export async function idleMemory (): Promise<Row[]> {
  const ours: number[] = []
  const bare: number[] = []
  for (let index = 0; index < rounds; index++) {
    const [a, b] = await Promise.all([
      kilobytes(() => Contestant.start('ours', setup, 'idle')),
      kilobytes(() => Contestant.start('bare route', '', 'plain'))
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
    goal: `≤ ${mostRatio}, ≤ ${mostKb} KB`,
    met: a / b <= mostRatio && a <= mostKb,
    figures: [cost('RSS per connection', 'KB', a)],
    chart: {
      file: 'idle-memory',
      title: `RSS per idle connection, of ${connections.toLocaleString('en')}`,
      unit: 'KB',
      bars: [{ label: 'ours, authenticated', value: a, isOurs: true }, { label: 'bare route', value: b }],
      goal: { value: Math.min(mostKb, mostRatio * b), label: `goal: ${mostRatio} × the route, ${mostKb} KB at most` }
    }
  }]
}
