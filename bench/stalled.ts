// One socket among a thousand that never reads: how it delays the others, and how much memory it takes.
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { clientProtocols } from './client-protocols.js'
import { LightClient } from './light-client.js'
import type { Delivery } from './load-generator.js'
import { cost, rounds, seconds, type Row } from './report.js'
import type { OurSetup } from './socket-ours.js'
import { median, percentile } from './statistics.js'
import { Target } from './targets.js'

const sockets = 1000
const limit = 4_194_304
const frameBytes = 241
/** Largest send buffer of the kernel for a socket: the third number of net.ipv4.tcp_wmem. */
const kernelBytes = 4_194_304
const maxP50 = 1.1
const maxP99 = 1.3
const maxP99Ms = 2

const setup: OurSetup = {
  agents: 200,
  frameBytes,
  options: {
    publicWs: { maxConnections: sockets, pingIntervalMs: 600_000 },
    sockets: { maxBufferedBytes: limit, agentsUpdateIntervalMs: 200 },
    admission: { burst: 2 * sockets },
    feed: { bookmarkIntervalMs: 600_000 }
  }
}

/** Stays below the burst of frames that a connection may send. */
const maxPages = 180
const page = '{"type":"get_discovery","page":1,"page_size":100}'
const pageBytes = 100_000
const acknowledged = '{"type":"unwatch","requestId":"stalled"}'
const last = '{"type":"unwatch","requestId":"last"}'

/**
 * Sends requests and does not read. The server keeps every response for it, and only the newest of the lists of agents that
 * it sends by itself.
 */
class StalledClient {
  readonly #client: LightClient
  readonly #unsent: () => Promise<number>

  private constructor (client: LightClient, unsent: () => Promise<number>) {
    this.#client = client
    this.#unsent = unsent
  }

  static async open ({ server }: Target): Promise<StalledClient> {
    const client = await LightClient.open(server.port, clientProtocols.requester.path)
    client.socket.pause()
    return new StalledClient(client, () => server.request<number>('unsent'))
  }

  /** Requests pages until the buffers of the kernel are full, and then `bytes` more, which the server has to buffer. */
  async fill (bytes: number): Promise<void> {
    let pages = 0
    for (; pages < maxPages && await this.#unsent() === 0; pages++) await this.#request(page)
    for (const end = Math.min(maxPages, pages + bytes / pageBytes); pages < end; pages++) await this.#request(page)
  }

  /** Requests one more frame for this socket alone. */
  requestAck (): void { this.#client.send(acknowledged) }

  /** Reads everything. @throws when the socket was not stalled or is closed */
  async drain (): Promise<void> {
    if (await this.#unsent() === 0) throw new Error('the server buffers nothing for the socket that should be stalled')
    const received = new Promise<void>((resolve, reject) => {
      this.#client.onText = text => { if (text.includes('"requestId":"last"')) resolve() }
      this.#client.onClose = () => reject(new Error('the stalled socket was closed before the end of the round'))
    })
    this.#client.send(last)
    this.#client.socket.resume()
    await received
    await this.close()
  }

  async close (): Promise<void> {
    this.#client.destroy()
    while (await this.#unsent() > 0) await sleep(20)
  }

  async #request (frame: string): Promise<void> {
    this.#client.send(frame)
    await sleep(5)
  }
}

/** Milliseconds from one change to its arrival at each watcher. */
async function delays ({ server, clients }: Target): Promise<number[]> {
  const delivery = clients.receive<Delivery>()
  const at = await server.request<number>({ emit: 1, reportTime: true })
  return (await delivery).times.map(time => time - at)
}

interface Delay { p50: number, p99: number }

async function roundOf (target: Target, stalledClient: StalledClient | undefined): Promise<Delay> {
  const all: number[] = []
  const end = performance.now() + seconds * 1000
  while (performance.now() < end) {
    stalledClient?.requestAck()
    all.push(...await delays(target))
    await sleep(10)
  }
  return { p50: percentile(all, 0.5), p99: percentile(all, 0.99) }
}

async function stalledRound (target: Target): Promise<Delay> {
  const stalledClient = await StalledClient.open(target)
  await stalledClient.fill(limit / 2)
  const delay = await roundOf(target, stalledClient)
  await stalledClient.drain()
  return delay
}

const medians = (delays: readonly Delay[]): Delay =>
  ({ p50: median(delays.map(({ p50 }) => p50)), p99: median(delays.map(({ p99 }) => p99)) })

/** Growth of RSS in bytes by a client that requests more than the server may buffer for it. */
async function growth (target: Target): Promise<number> {
  const before = await target.server.request<number>('rss')
  const stalledClient = await StalledClient.open(target)
  await stalledClient.fill(2 * limit)
  const after = await target.server.request<number>('rss')
  await stalledClient.close()
  return after - before
}

const ms = (value: number) => `${value.toFixed(2)} ms`
const mb = (bytes: number) => `${(bytes / 1_048_576).toFixed(1)} MiB`
const among = `one stalled socket among ${sockets.toLocaleString('en')}`

function delayRow (name: string, a: number, b: number, goal: string, met: boolean): Row {
  return {
    name: `${among}: ${name} of the others`,
    ours: ms(a),
    peer: `without it: ${ms(b)}`,
    ratio: (a / b).toFixed(2),
    goal,
    met,
    figures: [cost(`delay, ${name}`, 'ms', a), cost(`delay without a stalled socket, ${name}`, 'ms', b)]
  }
}

export async function stalled (): Promise<Row[]> {
  const target = await Target.start('ours', setup, 'watcher')
  await target.open(sockets - 1)
  await roundOf(target, undefined)
  const [withIt, without]: [Delay[], Delay[]] = [[], []]
  for (let index = 0; index < rounds; index++) {
    without.push(await roundOf(target, undefined))
    withIt.push(await stalledRound(target))
  }
  const rss = await growth(target)
  target.stop()
  await once(target.server.child, 'exit')
  const [a, b] = [medians(withIt), medians(without)]
  const isP99Met = a.p99 / b.p99 <= maxP99 || a.p99 - b.p99 <= maxP99Ms
  const chart = {
    file: 'stalled',
    title: `Milliseconds from a change to the others, ${among}`,
    unit: 'ms',
    bars: [
      { label: 'p50 with it', value: a.p50, isOurs: true },
      { label: 'p50 without', value: b.p50 },
      { label: 'p99 with it', value: a.p99, isOurs: true },
      { label: 'p99 without', value: b.p99 }
    ]
  }
  return [
    { ...delayRow('p50', a.p50, b.p50, `≤ ${maxP50.toFixed(2)}`, a.p50 / b.p50 <= maxP50), chart },
    delayRow('p99', a.p99, b.p99, `≤ ${maxP99.toFixed(2)} or ${maxP99Ms} ms more`, isP99Met),
    {
      name: `${among}: RSS growth when it requests more than the buffer limit`,
      ours: mb(rss),
      peer: '–',
      ratio: '–',
      goal: `≤ ${mb(limit + kernelBytes)}`,
      met: rss <= limit + kernelBytes,
      figures: [cost('RSS of a stalled socket', 'MB', rss / 1_048_576)]
    }
  ]
}
