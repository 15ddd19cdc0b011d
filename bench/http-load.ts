// HTTP load from autocannon, in rounds that alternate between ours and a peer.
import autocannon from 'autocannon'
import type { BenchProcess } from './bench-process.js'
import { cost, rate, rounds, seconds, type Figure } from './report.js'
import { median } from './statistics.js'

/** A round ends after `amount` requests, or after the seconds of a run. `next` gives what differs from request to request. */
export interface Load {
  path: string
  connections?: number
  method?: 'GET' | 'POST'
  headers?: Record<string, string>
  body?: string
  amount?: number
  next?: () => { path?: string, headers?: Record<string, string>, body?: string }
}

/** Number of requests, requests per second, CPU of the server per request in microseconds, and median latency in milliseconds. */
export interface Result { requests: number, rate: number, cpuUs: number, p50: number }

/** Result of autocannon, and the time to the last response: autocannon itself continues to the end of a whole second. */
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

/** Runs one round of load on a server. @throws when a response is not 2xx */
export async function round (server: BenchProcess, load: Load): Promise<Result> {
  const { path, connections = 40, method = 'GET', headers = {}, body, amount, next } = load
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
  const requests = result.requests.total
  if (result.non2xx > 0 || result.errors > 0) throw new Error(`${path}: ${result.non2xx} responses are not 2xx, ${result.errors} errors`)
  return { requests, rate: requests / elapsedMs * 1000, cpuUs: used / requests, p50: result.latency.p50 }
}

function medians (results: readonly Result[]): Result {
  const of = (name: keyof Result) => median(results.map(result => result[name]))
  return { requests: of('requests'), rate: of('rate'), cpuUs: of('cpuUs'), p50: of('p50') }
}

export interface Compared { ours: Result, peer: Result, ratio: number }

/** Runs rounds on ours and on the peer in turn, so that other load of the machine affects both. */
export async function compare (ours: BenchProcess, ourLoad: Load, peer: BenchProcess, peerLoad: Load): Promise<Compared> {
  const results: Record<'ours' | 'peer', Result[]> = { ours: [], peer: [] }
  for (let index = 0; index < rounds; index++) {
    results.ours.push(await round(ours, ourLoad))
    results.peer.push(await round(peer, peerLoad))
  }
  const [a, b] = [medians(results.ours), medians(results.peer)]
  return { ours: a, peer: b, ratio: a.rate / b.rate }
}

/** The values that `show` writes as text. */
export const figuresOf = (name: string, result: Result): Figure[] => [rate(name, result.rate), cost(`${name}, CPU`, 'µs', result.cpuUs)]

export const show = ({ rate, cpuUs }: Result) => `${Math.round(rate)}/s, ${cpuUs.toFixed(1)} µs CPU`
