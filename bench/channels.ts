// CPU of the server per delivery of a message that one client publishes to the subscribers of a channel.
import { channel, type ClientProtocolName } from './client-protocols.js'
import type { Delivery, PublishCommand, PublisherCommand } from './load-generator.js'
import { cost, number, seconds, us, type Row } from './report.js'
import type { OurSetup } from './socket-ours.js'
import type { ServerKind } from './socket-server.js'
import { median } from './statistics.js'
import { interleave, Target } from './targets.js'

const subscribers = 100
const frameBytes = 241
/** The length of timestamps and offsets varies. */
const tolerance = 6
const roundMs = seconds * 500
const batchSizes = [1, 10] as const

const setup: OurSetup = {
  agents: subscribers + 1,
  options: {
    agentsWs: { maxConnections: subscribers + 1, pingIntervalMs: 600_000, messagesPerSecond: 1e9, burst: 1e9 },
    sockets: { maxUnauthenticated: subscribers, maxUnauthenticatedPerAddress: subscribers },
    feed: { bookmarkIntervalMs: 600_000 }
  }
}

/** Upper limits of the ratio of ours to each peer; undefined is only reported. */
const goals: Partial<Record<ServerKind, number | undefined>> = {
  'ws, text passed on': 1,
  'ws, prepared frame passed on': undefined,
  'Socket.IO room, passed on': 0.5
}

/** Protocols of the subscribers and of the publisher, and the frame that is published. */
interface ClientSetup { subscribers: ClientProtocolName, publisher: ClientProtocolName, text: string }

const padded = (make: (filler: string) => string, bytes: number) => make('-'.repeat(bytes - make('').length))
/** Length of our frame around `data`, with an epoch of nine characters. The peers pass on a text of the same total length. */
const overhead = JSON.stringify({
  type: 'message', channel, from: 'agent-000000', data: '', epoch: 'epoch-id0', offset: 1000, timestamp: 1795444097.777
}).length

const plain: ClientSetup = {
  subscribers: 'plain',
  publisher: 'plain',
  text: padded(data => JSON.stringify({ type: 'message', data }), frameBytes)
}
const clientSetups: Partial<Record<ServerKind, ClientSetup>> = {
  ours: {
    subscribers: 'subscriber',
    publisher: 'idle',
    text: JSON.stringify({ type: 'publish', channel, data: '-'.repeat(frameBytes - overhead) })
  },
  'Socket.IO room, passed on': {
    subscribers: 'socket.io',
    publisher: 'socket.io',
    text: padded(data => `42${JSON.stringify(['message', { data }])}`, frameBytes)
  }
}
const clientSetupOf = (name: ServerKind) => clientSetups[name] ?? plain

async function start (name: ServerKind): Promise<Target> {
  const { subscribers: protocol, publisher } = clientSetupOf(name)
  const target = await Target.start(name, name === 'ours' ? setup : '', protocol)
  const [publisherToken = '', ...tokens] = target.server.details.tokens as string[] | undefined ?? []
  await target.open(subscribers, tokens.length > 0 ? tokens : undefined)
  const command: PublisherCommand = { publisher, token: publisherToken }
  await target.clients.request({ ...command })
  return target
}

/** CPU of the server per delivery, in microseconds. A batch is published when all clients have received the one before. */
async function costOf ({ name, server, clients }: Target, batchSize: number): Promise<number> {
  const command: PublishCommand = { publish: clientSetupOf(name).text, times: batchSize }
  const before = await server.cpu()
  const end = performance.now() + roundMs
  let deliveries = 0
  while (deliveries === 0 || performance.now() < end) {
    const { bytes } = await clients.request<Delivery>({ ...command })
    deliveries += batchSize * subscribers
    const each = bytes / batchSize / subscribers
    if (Math.abs(each - frameBytes) > tolerance) throw new Error(`${name}: ${each} bytes instead of ${frameBytes}`)
  }
  return (await server.cpu() - before) / deliveries
}

const batchText = (batchSize: number) => batchSize === 1 ? 'one at a time' : `${batchSize} at once`

interface Cost { name: ServerKind, us: number }

function rowAgainst (ours: Cost, peer: Cost, batchSize: number): Row {
  const limit = goals[peer.name]
  const ratio = ours.us / peer.us
  return {
    name: `channels: CPU per delivery, ${frameBytes} bytes published to ${number(subscribers)} subscribers, ${batchText(batchSize)}`,
    ours: us(ours.us),
    peer: `${peer.name}: ${us(peer.us)}`,
    ratio: ratio.toFixed(2),
    goal: limit === undefined ? 'reported' : `≤ ${limit.toFixed(1)}`,
    met: ratio <= (limit ?? Infinity)
  }
}

function rowsOf (costs: readonly Cost[], batchSize: number): Row[] {
  const [ours, plainPeer, ...otherPeers] = costs as [Cost, Cost, ...Cost[]]
  const first: Row = {
    ...rowAgainst(ours, plainPeer, batchSize),
    figures: [cost(`CPU per delivery, ${batchText(batchSize)}`, 'µs', ours.us)],
    chart: {
      file: batchSize === 1 ? 'channels' : 'channels-ten',
      title: `CPU of the server per delivery to ${number(subscribers)} subscribers, published ${batchText(batchSize)}`,
      unit: 'µs',
      bars: costs.map(({ name, us: value }) => ({ label: name, value, isOurs: name === 'ours' })),
      goal: { value: plainPeer.us, label: 'goal: ws with one text' }
    }
  }
  return [first, ...otherPeers.map(peer => rowAgainst(ours, peer, batchSize))]
}

export async function channels (): Promise<Row[]> {
  const all: Target[] = []
  for (const name of ['ours', ...Object.keys(goals)] as ServerKind[]) all.push(await start(name))
  const rows: Row[] = []
  for (const batchSize of batchSizes) {
    const results = await interleave(all, target => costOf(target, batchSize))
    rows.push(...rowsOf(Array.from(results, ([{ name }, costs]) => ({ name, us: median(costs) })), batchSize))
  }
  for (const each of all) each.stop()
  return rows
}
