// CPU of the server per delivery of one frame to many sockets, against the usual ways and against the limit.
import type { Chart } from './chart.js'
import type { ClientProtocolName } from './client-protocols.js'
import type { Delivery } from './load-generator.js'
import { cost, number, seconds, us, type Row } from './report.js'
import type { OurSetup } from './socket-ours.js'
import type { ServerKind } from './socket-server.js'
import { median } from './statistics.js'
import { interleave, Target } from './targets.js'

const sockets = 1000
const frameBytes = 241
const roundMs = seconds * 500

const setup: OurSetup = {
  agents: sockets,
  frameBytes,
  options: {
    agentsWs: { maxConnections: sockets, pingIntervalMs: 600_000 },
    sockets: { maxUnauthenticated: sockets, maxUnauthenticatedPerAddress: sockets },
    admission: { burst: 2 * sockets },
    feed: { bookmarkIntervalMs: 600_000 }
  }
}

/** Upper limits of the ratio of ours to each peer; undefined is only reported. */
type Goals = Partial<Record<ServerKind, number | undefined>>

const single: Goals = {
  'ws, JSON.stringify each': undefined,
  'ws, one string': 0.8,
  'ws, prepared frame': 1.15,
  'route, one string': 0.8,
  'route, prepared frame': 1.15,
  'Socket.IO room': 0.75
}
const tenInATick: Goals = {
  'ws, one string': 0.15,
  'route, one string': 0.15,
  'route, prepared frame': undefined,
  'Socket.IO room': 0.2
}

function protocolOf (name: ServerKind): ClientProtocolName {
  if (name === 'ours') return 'agents'
  return name === 'Socket.IO room' ? 'socket.io' : 'plain'
}

async function start (name: ServerKind): Promise<Target> {
  const target = await Target.start(name, name === 'ours' ? setup : String(frameBytes), protocolOf(name))
  await target.open(sockets, target.server.details.tokens as string[] | undefined)
  return target
}

/** Emits the events of one tick, and waits until all clients have received them. */
async function tick ({ name, server, clients }: Target, perTick: number): Promise<void> {
  server.send({ emit: perTick })
  const { bytes } = await clients.receive<Delivery>()
  if (perTick === 1 && bytes !== frameBytes * sockets) throw new Error(`${name}: ${bytes / sockets} bytes instead of ${frameBytes}`)
}

/** CPU of the server per delivery of one event, in microseconds. */
async function costOf (target: Target, perTick: number): Promise<number> {
  target.clients.send({ expect: perTick })
  const before = await target.server.cpu()
  const end = performance.now() + roundMs
  let ticks = 0
  while (ticks === 0 || performance.now() < end) {
    await tick(target, perTick)
    ticks++
  }
  return (await target.server.cpu() - before) / (ticks * perTick * sockets)
}

interface Cost { name: ServerKind, us: number }

function rowAgainst (ours: Cost, peer: Cost, events: string, limit: number | undefined): Row {
  const ratio = ours.us / peer.us
  return {
    name: `CPU per delivery, ${frameBytes} bytes to ${number(sockets)} sockets, ${events}`,
    ours: us(ours.us),
    peer: `${peer.name}: ${us(peer.us)}`,
    ratio: ratio.toFixed(2),
    goal: limit === undefined ? 'reported' : `≤ ${limit.toFixed(2)}`,
    met: ratio <= (limit ?? Infinity)
  }
}

function chartOf (file: string, costs: readonly Cost[], events: string, goals: Goals): Chart {
  const plain = costs.find(({ name }) => name === 'ws, one string')!
  const part = goals[plain.name]!
  return {
    file,
    title: `CPU of the server per delivery, ${events}`,
    unit: 'µs',
    bars: costs.map(({ name, us: value }) => ({ label: name, value, isOurs: name === 'ours' })),
    goal: { value: part * plain.us, label: `goal: ${part} × ws with one string` }
  }
}

async function compareAll (all: ReadonlyMap<ServerKind, Target>, perTick: number, goals: Goals, file: string): Promise<Row[]> {
  const names = ['ours', ...Object.keys(goals)] as ServerKind[]
  const results = await interleave(names.map(name => all.get(name)!), target => costOf(target, perTick))
  const costs = Array.from(results, ([{ name }, values]) => ({ name, us: median(values) }))
  const events = perTick === 1 ? 'one event a tick' : `${perTick} events a tick`
  const [ours, ...peers] = costs as [Cost, ...Cost[]]
  const rows = peers.map(peer => rowAgainst(ours, peer, events, goals[peer.name]))
  rows[0]!.chart = chartOf(file, costs, events, goals)
  rows[0]!.figures = [cost(`CPU per delivery, ${events}`, 'µs', ours.us)]
  return rows
}

export async function fanOutSockets (): Promise<Row[]> {
  const all = new Map<ServerKind, Target>()
  for (const name of ['ours', ...Object.keys(single)] as ServerKind[]) all.set(name, await start(name))
  const rows = [...await compareAll(all, 1, single, 'fan-out-single'), ...await compareAll(all, 10, tenInATick, 'fan-out-ten')]
  for (const each of all.values()) each.stop()
  return rows
}
