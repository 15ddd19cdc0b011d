// Rounds of load on a server, and the rows and values that they result in.
import { fork, type ChildProcess, type Serializable } from 'node:child_process'
import { once } from 'node:events'
import autocannon from 'autocannon'
import type { Chart } from './chart.js'
import { median } from './statistics.js'

export const rounds = Number(process.env.BENCH_ROUNDS ?? 5)
export const seconds = Number(process.env.BENCH_SECONDS ?? 3)

/** One measured value of ours. Values of two commits are matched by part and name, so the names stay when the texts of rows change. */
export interface Figure { name: string, unit: string, value: number, lowerIsBetter: boolean }

export const cost = (name: string, unit: string, value: number): Figure => ({ name, unit, value, lowerIsBetter: true })
export const rate = (name: string, value: number): Figure => ({ name, unit: '/s', value, lowerIsBetter: false })

/**
 * One line of the report: what was measured, what came out, what was aimed at; some are drawn too.
 * `figures` are the values in `ours`; rows that compare the same values with another peer have none.
 */
export interface Row {
  name: string
  ours: string
  peer: string
  ratio: string
  goal: string
  met: boolean
  chart?: Chart
  figures?: Figure[]
}

/** A program of this folder in a process of its own, which answers questions about itself. */
export class Server {
  readonly child: ChildProcess
  port = 0
  details: Record<string, unknown> = {}

  private constructor (child: ChildProcess) { this.child = child }

  static async start (file: string, args: string[]): Promise<Server> {
    const server = new Server(fork(new URL(file, import.meta.url), args, { execArgv: ['--expose-gc'] }))
    const [message] = await once(server.child, 'message') as [{ port: number } & Record<string, unknown>]
    server.port = message.port
    server.details = message
    return server
  }

  get url () { return `http://127.0.0.1:${this.port}` }

  async ask<T> (question: Serializable): Promise<T> {
    this.tell(question)
    return this.next<T>()
  }

  /** Says something that is not answered. */
  tell (message: Serializable): void { this.child.send(message) }

  /** What it says next. */
  async next<T> (): Promise<T> {
    const [message] = await once(this.child, 'message') as [T]
    return message
  }

  /** CPU that the process has used, in microseconds. */
  async cpu (): Promise<number> {
    const { user, system } = await this.ask<NodeJS.CpuUsage>('cpu')
    return user + system
  }

  stop (): void { this.child.disconnect() }

  /** Lets it close what it has open, and waits for that. */
  async end (): Promise<void> {
    this.child.send('end')
    await once(this.child, 'exit')
  }
}

export interface Load { path: string, connections?: number, method?: 'GET' | 'POST', headers?: Record<string, string>, body?: string, amount?: number, next?: () => { path?: string, headers?: Record<string, string>, body?: string } }
/** Requests, how many a second, CPU of the server per request in microseconds, and the median time of one in milliseconds. */
export interface Result { requests: number, rate: number, cpuUs: number, p50: number }

/** What autocannon counted, and the milliseconds from its start to the last answer: it goes on to the end of a whole second. */
function fire (options: autocannon.Options): Promise<{ result: autocannon.Result, elapsedMs: number }> {
  return new Promise((resolve, reject) => {
    const start = performance.now()
    let last = start
    const running = autocannon(options, (error, result) => {
      if (error) reject(error)
      else resolve({ result, elapsedMs: last - start })
    })
    running.on('response', () => { last = performance.now() })
  })
}

/** One round of load on a server: requests a second, and CPU of the server per request in microseconds. */
export async function round (server: Server, { path, connections = 40, method = 'GET', headers = {}, body, amount, next }: Load): Promise<Result> {
  const before = await server.cpu()
  const { result, elapsedMs } = await fire({
    url: server.url + path,
    method,
    headers,
    body,
    connections,
    ...(amount ? { amount } : { duration: seconds }),
    ...(next && { requests: [{ setupRequest: (request: object) => ({ ...request, ...next() }) }] })
  })
  const used = await server.cpu() - before
  if (result.non2xx > 0 || result.errors > 0) throw new Error(`${path}: ${result.non2xx} answers that are not 2xx, ${result.errors} errors`)
  return { requests: result.requests.total, rate: result.requests.total / elapsedMs * 1000, cpuUs: used / result.requests.total, p50: result.latency.p50 }
}

/** Rounds on ours and on the peer in turn, so that what else the machine does is shared. */
export async function compare (ours: Server, ourLoad: Load, peer: Server, peerLoad: Load): Promise<{ ours: Result, peer: Result, ratio: number }> {
  const results: Record<'ours' | 'peer', Result[]> = { ours: [], peer: [] }
  for (let index = 0; index < rounds; index++) {
    results.ours.push(await round(ours, ourLoad))
    results.peer.push(await round(peer, peerLoad))
  }
  const middle = (side: Result[]): Result => ({ requests: median(side.map(({ requests }) => requests)), rate: median(side.map(({ rate }) => rate)), cpuUs: median(side.map(({ cpuUs }) => cpuUs)), p50: median(side.map(({ p50 }) => p50)) })
  const [a, b] = [middle(results.ours), middle(results.peer)]
  return { ours: a, peer: b, ratio: a.rate / b.rate }
}

/** The values that `show` writes as text. */
export const figuresOf = (name: string, result: Result): Figure[] => [rate(name, result.rate), cost(`${name}, CPU`, 'µs', result.cpuUs)]

export const show = ({ rate, cpuUs }: Result) => `${Math.round(rate)}/s, ${cpuUs.toFixed(1)} µs CPU`
