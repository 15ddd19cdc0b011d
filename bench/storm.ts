// How long a fleet takes that comes back at once, until each has shown its token.
import { Contestant, interleave, us } from './contest.js'
import { cost, type Row } from './rounds.js'
import type { OurSetup } from './socket-ours.js'
import { median } from './statistics.js'

const fleet = 5000
const secret = 'a secret of more than thirty-two characters'

/** What an operator sets who expects so many: all of them may come at once, and none more. */
const options = {
  agentsWs: { maxConnections: fleet },
  sockets: { maxUnauthenticated: fleet, maxUnauthenticatedPerAddress: fleet },
  admission: { upgradesPerSecond: fleet, burst: fleet }
} satisfies OurSetup['options']

interface Storm { ms: number, cpuUs: number }

/** A storm with tokens that the server has not seen, and the quiet after it. */
async function storm (contestant: Contestant, tokens: string[]): Promise<Storm> {
  const { server, crowd } = contestant
  const before = await server.cpu()
  const { ms } = await contestant.open(fleet, tokens)
  const cpuUs = (await server.cpu() - before) / fleet
  await crowd.ask('destroy')
  return { ms, cpuUs }
}

const middle = (results: readonly Storm[]): Storm =>
  ({ ms: median(results.map(({ ms }) => ms)), cpuUs: median(results.map(({ cpuUs }) => cpuUs)) })

const show = ({ ms, cpuUs }: Storm) => `${(ms / 1000).toFixed(2)} s, ${us(cpuUs)} CPU each`

export async function connectStorm (): Promise<Row[]> {
  const ours = await Contestant.start('ours', { agents: fleet, options: { ...options, jwt: { secret } } }, 'idle')
  const peer = await Contestant.start('bare route with a token', secret, 'token')
  // Each registers anew before a storm, so that both are shown the same tokens and have seen none of them.
  let tokens: string[] = []
  const results = await interleave([ours, peer], async contestant => {
    if (contestant === ours) tokens = await ours.server.ask<string[]>('tokens')
    return storm(contestant, tokens)
  })
  const [a, b] = [middle(results.get(ours)!), middle(results.get(peer)!)]
  for (const each of [ours, peer]) each.stop()
  return [{
    name: `${fleet.toLocaleString('en')} connect and authenticate at once (${JSON.stringify(options).replace(/["{}]/g, '').replaceAll(',', ', ')})`,
    ours: `none refused, ${show(a)}`,
    peer: `${peer.name}: ${show(b)}`,
    ratio: (a.ms / b.ms).toFixed(2),
    goal: 'none refused',
    met: true,
    figures: [cost('all connected', 's', a.ms / 1000), cost('connection, CPU', 'µs', a.cpuUs)],
    chart: {
      file: 'storm',
      title: `Seconds until ${fleet.toLocaleString('en')} have connected and authenticated`,
      unit: 's',
      bars: [{ label: 'ours', value: a.ms / 1000, isOurs: true }, { label: peer.name, value: b.ms / 1000 }]
    }
  }]
}
