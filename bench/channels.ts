// What it costs the server to bring what one client publishes to the subscribers of a channel.
import { Contestant, interleave, number, us } from './contest.js'
import type { Heard, SayWish, SpeakerWish } from './crowd.js'
import { channel, type DialectName } from './dialects.js'
import { cost as figure, seconds, type Row } from './rounds.js'
import type { OurSetup } from './socket-ours.js'
import type { ServerKind } from './socket-server.js'
import { median } from './statistics.js'

const subscribers = 100
const frameBytes = 241
/** Timestamps and offsets are not always as long. */
const tolerance = 6
const roundMs = seconds * 500
const atOnce = [1, 10] as const

const setup: OurSetup = {
  agents: subscribers + 1,
  options: {
    agentsWs: { maxConnections: subscribers + 1, pingIntervalMs: 600_000, messagesPerSecond: 1e9, burst: 1e9 },
    sockets: { maxUnauthenticated: subscribers, maxUnauthenticatedPerAddress: subscribers },
    feed: { bookmarkIntervalMs: 600_000 }
  }
}

/** What ours may cost, in parts of each peer; undefined is only reported. */
const goals: Partial<Record<ServerKind, number | undefined>> = { 'ws, text passed on': 1, 'ws, prepared frame passed on': undefined, 'Socket.IO room, passed on': 0.5 }

interface Manner { clients: DialectName, speaker: DialectName, text: string }

const padded = (make: (filler: string) => string, bytes: number) => make('-'.repeat(bytes - make('').length))
/** What ours says around `data`, in an epoch of nine characters: the peers pass on what is as long from the start. */
const aroundData = JSON.stringify({ type: 'message', channel, from: 'agent-000000', data: '', epoch: 'epoch-id0', offset: 1000, timestamp: 1795444097.777 }).length

const plain: Manner = { clients: 'plain', speaker: 'plain', text: padded(data => JSON.stringify({ type: 'message', data }), frameBytes) }
const manners: Partial<Record<ServerKind, Manner>> = {
  ours: { clients: 'subscriber', speaker: 'idle', text: JSON.stringify({ type: 'publish', channel, data: '-'.repeat(frameBytes - aroundData) }) },
  'Socket.IO room, passed on': { clients: 'socket.io', speaker: 'socket.io', text: padded(data => `42${JSON.stringify(['message', { data }])}`, frameBytes) }
}
const mannerOf = (name: ServerKind) => manners[name] ?? plain

async function start (name: ServerKind): Promise<Contestant> {
  const { clients, speaker } = mannerOf(name)
  const contestant = await Contestant.start(name, name === 'ours' ? setup : '', clients)
  const [own = '', ...tokens] = contestant.server.details.tokens as string[] | undefined ?? []
  await contestant.open(subscribers, tokens.length > 0 ? tokens : undefined)
  const wish: SpeakerWish = { speaker, token: own }
  await contestant.crowd.ask({ ...wish })
  return contestant
}

/** CPU of the server per delivery, in microseconds. The next are published when all have heard these. */
async function costOf ({ name, server, crowd }: Contestant, times: number): Promise<number> {
  const wish: SayWish = { say: mannerOf(name).text, times }
  const before = await server.cpu()
  const end = performance.now() + roundMs
  let deliveries = 0
  while (deliveries === 0 || performance.now() < end) {
    const { bytes } = await crowd.ask<Heard>({ ...wish })
    deliveries += times * subscribers
    const each = bytes / times / subscribers
    if (Math.abs(each - frameBytes) > tolerance) throw new Error(`${name}: ${each} bytes instead of ${frameBytes}`)
  }
  return (await server.cpu() - before) / deliveries
}

const eventsOf = (times: number) => times === 1 ? 'one at a time' : `${times} at once`

function rowsOf (costs: ReadonlyArray<readonly [name: ServerKind, cost: number]>, times: number): Row[] {
  const [[, ours], ...peers] = costs as [readonly [ServerKind, number], ...typeof costs]
  const rows: Row[] = peers.map(([name, cost]) => {
    const most = goals[name]
    const ratio = ours / cost
    return { name: `channels: CPU per delivery, ${frameBytes} bytes published to ${number(subscribers)} subscribers, ${eventsOf(times)}`, ours: us(ours), peer: `${name}: ${us(cost)}`, ratio: ratio.toFixed(2), goal: most === undefined ? 'reported' : `≤ ${most.toFixed(1)}`, met: ratio <= (most ?? Infinity) }
  })
  rows[0]!.figures = [figure(`CPU per delivery, ${eventsOf(times)}`, 'µs', ours)]
  const [[, plainCost]] = peers as [readonly [ServerKind, number]]
  rows[0]!.chart = {
    file: times === 1 ? 'channels' : 'channels-ten',
    title: `CPU of the server per delivery to ${number(subscribers)} subscribers, published ${eventsOf(times)}`,
    unit: 'µs',
    bars: costs.map(([name, value]) => ({ label: name, value, isOurs: name === 'ours' })),
    goal: { value: plainCost, label: 'goal: ws with one text' }
  }
  return rows
}

export async function channels (): Promise<Row[]> {
  const all: Contestant[] = []
  for (const name of ['ours', ...Object.keys(goals)] as ServerKind[]) all.push(await start(name))
  const rows: Row[] = []
  for (const times of atOnce) {
    const results = await interleave(all, contestant => costOf(contestant, times))
    rows.push(...rowsOf(Array.from(results, ([{ name }, costs]) => [name, median(costs)] as const), times))
  }
  for (const each of all) each.stop()
  return rows
}
