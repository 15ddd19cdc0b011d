// How long many agents take that all connect at once, until each is authenticated.
import { cost, us, type Row } from './report.js'
import type { OurSetup } from './socket-ours.js'
import { median } from './statistics.js'
import { interleave, Target } from './targets.js'

const connections = 5000
const secret = 'a secret of more than thirty-two characters'

/** The options of an operator who expects this number of agents: all of them may connect at once, and no more. */
const options = {
  agentsWs: { maxConnections: connections },
  sockets: { maxUnauthenticated: connections, maxUnauthenticatedPerAddress: connections },
  admission: { upgradesPerSecond: connections, burst: connections }
} satisfies OurSetup['options']

interface Burst { ms: number, cpuUs: number }

/** Connects all agents with tokens that the server has not seen before, and closes their sockets. */
async function connectAll (target: Target, tokens: string[]): Promise<Burst> {
  const { server, clients } = target
  const before = await server.cpu()
  const { ms } = await target.open(connections, tokens)
  const cpuUs = (await server.cpu() - before) / connections
  await clients.request('destroy')
  return { ms, cpuUs }
}

const medians = (results: readonly Burst[]): Burst =>
  ({ ms: median(results.map(({ ms }) => ms)), cpuUs: median(results.map(({ cpuUs }) => cpuUs)) })

const show = ({ ms, cpuUs }: Burst) => `${(ms / 1000).toFixed(2)} s, ${us(cpuUs)} CPU each`

const optionsText = JSON.stringify(options).replace(/["{}]/g, '').replaceAll(',', ', ')

export async function connectBurst (): Promise<Row[]> {
  const ours = await Target.start('ours', { agents: connections, options: { ...options, jwt: { secret } } }, 'idle')
  const peer = await Target.start('bare route with a token', secret, 'token')
  // All agents register again before each burst, so that both servers get the same tokens for the first time.
  let tokens: string[] = []
  const results = await interleave([ours, peer], async target => {
    if (target === ours) tokens = await ours.server.request<string[]>('tokens')
    return connectAll(target, tokens)
  })
  const [a, b] = [medians(results.get(ours)!), medians(results.get(peer)!)]
  for (const each of [ours, peer]) each.stop()
  return [{
    name: `${connections.toLocaleString('en')} connect and authenticate at once (${optionsText})`,
    ours: `none refused, ${show(a)}`,
    peer: `${peer.name}: ${show(b)}`,
    ratio: (a.ms / b.ms).toFixed(2),
    goal: 'none refused',
    met: true,
    figures: [cost('all connected', 's', a.ms / 1000), cost('connection, CPU', 'µs', a.cpuUs)],
    chart: {
      file: 'connect-burst',
      title: `Seconds until ${connections.toLocaleString('en')} have connected and authenticated`,
      unit: 's',
      bars: [{ label: 'ours', value: a.ms / 1000, isOurs: true }, { label: peer.name, value: b.ms / 1000 }]
    }
  }]
}
