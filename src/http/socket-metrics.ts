import type prom from '@platformatic/prom-client'
import type { Sockets } from '../sockets/sockets.js'
import type { TierName } from '../protocol/frames/catalogues.js'
import type { Traffic } from '../sockets/outbound.js'
import { counter, gauge } from './series.js'

type Sources = Pick<Sockets, 'hub' | 'slots' | 'traffic'>

const tiersOf = (traffic: Sources['traffic']) => Object.keys(traffic) as TierName[]

/** What there is one number of for each tier. */
const tallies: ReadonlyArray<[name: string, help: string, of: (traffic: Traffic) => number]> = [
  ['writes_total', 'Writes in which frames left, by tier', ({ writes }) => writes],
  ['superseded_frames_total', 'Frames that a newer one took the place of, by tier', ({ superseded }) => superseded],
  ['rate_limited_frames_total', 'Frames that were not acted on because there were too many, by tier', ({ limited }) => limited],
  ['slow_closes_total', 'Sockets closed because they read too slowly, by tier', ({ slowCloses }) => slowCloses]
]

function countTraffic (traffic: Sources['traffic'], register: prom.Registry): void {
  const tiers = tiersOf(traffic)
  counter(register, 'agent_registry_websocket_frames_total', 'Frames, by tier and direction', ['tier', 'direction'], set => {
    for (const tier of tiers) set(traffic[tier].framesIn, { tier, direction: 'in' })
    for (const tier of tiers) set(traffic[tier].framesOut, { tier, direction: 'out' })
  })
  counter(register, 'agent_registry_websocket_bytes_total', 'Bytes of frames before compression, by tier and direction', ['tier', 'direction'], set => {
    for (const tier of tiers) set(traffic[tier].bytesIn, { tier, direction: 'in' })
    for (const tier of tiers) set(traffic[tier].bytesOut, { tier, direction: 'out' })
  })
  for (const [name, help, of] of tallies) {
    counter(register, `agent_registry_websocket_${name}`, help, ['tier'], set => {
      for (const tier of tiers) set(of(traffic[tier]), { tier })
    })
  }
}

/** What waits is looked at when it is asked for: whoever writes keeps no count of it. */
function measureQueues ({ hub, traffic }: Sources, register: prom.Registry): void {
  const tiers = tiersOf(traffic)
  gauge(register, 'agent_registry_websocket_connections_behind', 'Sockets that have not taken yet what was sent, by tier', ['tier'], set => {
    for (const tier of tiers) set([...hub.connections(tier)].filter(({ isBehind }) => isBehind).length, { tier })
  })
  gauge(register, 'agent_registry_websocket_waiting_bytes', 'Bytes that wait to be sent, by tier', ['tier'], set => {
    for (const tier of tiers) set([...hub.connections(tier)].reduce((sum, { depth }) => sum + depth, 0), { tier })
  })
}

/** Series of the sockets: as many as there are tiers, whoever is connected. */
export function countSockets (sources: Sources, register: prom.Registry): void {
  const { slots, traffic } = sources
  gauge(register, 'arcp_websocket_connections', 'Open sockets, by tier', ['tier'], set => {
    for (const tier of tiersOf(traffic)) set(slots.countOf(tier), { tier })
  })
  countTraffic(traffic, register)
  measureQueues(sources, register)
}
