// One socket that never reads among a thousand: what the others notice of it, and what it takes.
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { Contestant } from './contest.js'
import type { Heard } from './crowd.js'
import { dialects } from './dialects.js'
import { LightClient } from './light-client.js'
import { cost, rounds, seconds, type Row } from './rounds.js'
import type { OurSetup } from './socket-ours.js'
import { median, percentile } from './statistics.js'

const sockets = 1000
const limit = 4_194_304
const frameBytes = 241
/** What the kernel may hold for a socket that is written to: the third number of net.ipv4.tcp_wmem. */
const kernelBytes = 4_194_304
const mostP50 = 1.1
const mostP99 = 1.3
const mostP99Ms = 2

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

/** Fewer than one connection may send at once. */
const mostPages = 180
const page = '{"type":"get_discovery","page":1,"page_size":100}'
const pageBytes = 100_000
const acknowledged = '{"type":"unwatch","requestId":"stalled"}'
const last = '{"type":"unwatch","requestId":"last"}'

/** Asks, and never reads: what comes for it are answers, which count each, and lists of agents, of which the newest does. */
class Staller {
  readonly #client: LightClient
  readonly #unsent: () => Promise<number>

  private constructor (client: LightClient, unsent: () => Promise<number>) {
    this.#client = client
    this.#unsent = unsent
  }

  static async open ({ server }: Contestant): Promise<Staller> {
    const client = await LightClient.open(server.port, dialects.asking.path)
    client.socket.pause()
    return new Staller(client, () => server.ask<number>('unsent'))
  }

  /** Asks for pages until the kernel takes no more of them, and then for `bytes` more, which wait in the server. */
  async fill (bytes: number): Promise<void> {
    let pages = 0
    for (; pages < mostPages && await this.#unsent() === 0; pages++) await this.#ask(page)
    for (const end = Math.min(mostPages, pages + bytes / pageBytes); pages < end; pages++) await this.#ask(page)
  }

  /** One frame more for it alone. */
  ask (): void { this.#client.send(acknowledged) }

  /** Reads at last. @throws when it cannot: it did not stall, or was closed meanwhile */
  async wake (): Promise<void> {
    if (await this.#unsent() === 0) throw new Error('nothing waits for the socket that should be stalled')
    const isThere = new Promise<void>((resolve, reject) => {
      this.#client.onText = text => { if (text.includes('"requestId":"last"')) resolve() }
      this.#client.onClose = () => reject(new Error('the stalled socket was closed before the end of the round'))
    })
    this.#client.send(last)
    this.#client.socket.resume()
    await isThere
    await this.end()
  }

  async end (): Promise<void> {
    this.#client.destroy()
    while (await this.#unsent() > 0) await sleep(20)
  }

  async #ask (frame: string): Promise<void> {
    this.#client.send(frame)
    await sleep(5)
  }
}

/** Milliseconds from one change to each of those who hear of it. */
async function delays ({ server, crowd }: Contestant): Promise<number[]> {
  const heard = crowd.next<Heard>()
  const at = await server.ask<number>({ emit: 1, isTold: true })
  return (await heard).times.map(time => time - at)
}

interface Delay { p50: number, p99: number }

async function roundOf (contestant: Contestant, staller: Staller | undefined): Promise<Delay> {
  const all: number[] = []
  const end = performance.now() + seconds * 1000
  while (performance.now() < end) {
    staller?.ask()
    all.push(...await delays(contestant))
    await sleep(10)
  }
  return { p50: percentile(all, 0.5), p99: percentile(all, 0.99) }
}

async function stalledRound (contestant: Contestant): Promise<Delay> {
  const staller = await Staller.open(contestant)
  await staller.fill(limit / 2)
  const delay = await roundOf(contestant, staller)
  await staller.wake()
  return delay
}

const middle = (delays: readonly Delay[]): Delay =>
  ({ p50: median(delays.map(({ p50 }) => p50)), p99: median(delays.map(({ p99 }) => p99)) })

/** Bytes of RSS that one takes which asks for more than may wait for it. */
async function growth (contestant: Contestant): Promise<number> {
  const before = await contestant.server.ask<number>('rss')
  const staller = await Staller.open(contestant)
  await staller.fill(2 * limit)
  const after = await contestant.server.ask<number>('rss')
  await staller.end()
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
  const contestant = await Contestant.start('ours', setup, 'watcher')
  await contestant.open(sockets - 1)
  await roundOf(contestant, undefined)
  const [withIt, without]: [Delay[], Delay[]] = [[], []]
  for (let index = 0; index < rounds; index++) {
    without.push(await roundOf(contestant, undefined))
    withIt.push(await stalledRound(contestant))
  }
  const rss = await growth(contestant)
  contestant.stop()
  await once(contestant.server.child, 'exit')
  const [a, b] = [middle(withIt), middle(without)]
  const chart = {
    file: 'stalled',
    title: `Milliseconds from a change to the others, ${among}`,
    unit: 'ms',
    bars: [{ label: 'p50 with it', value: a.p50, isOurs: true }, { label: 'p50 without', value: b.p50 }, { label: 'p99 with it', value: a.p99, isOurs: true }, { label: 'p99 without', value: b.p99 }]
  }
  return [
    { ...delayRow('p50', a.p50, b.p50, `≤ ${mostP50.toFixed(2)}`, a.p50 / b.p50 <= mostP50), chart },
    delayRow('p99', a.p99, b.p99, `≤ ${mostP99.toFixed(2)} or ${mostP99Ms} ms more`, a.p99 / b.p99 <= mostP99 || a.p99 - b.p99 <= mostP99Ms),
    {
      name: `${among}: RSS that it takes when it asks for more than may wait`,
      ours: mb(rss),
      peer: '–',
      ratio: '–',
      goal: `≤ ${mb(limit + kernelBytes)}`,
      met: rss <= limit + kernelBytes,
      figures: [cost('RSS of a stalled socket', 'MB', rss / 1_048_576)]
    }
  ]
}
