// Servers that requests go through (one process, or two over Redis), with the clients that send requests and reply to them.
import { setTimeout as sleep } from 'node:timers/promises'
import { BenchProcess } from './bench-process.js'
import { number, seconds } from './report.js'
import type { OpenCommand, RunCommand, RunResult } from './request-load.js'
import { capability, type OurSetup } from './socket-ours.js'
import type { ServerKind } from './socket-server.js'
import { median } from './statistics.js'
import { startServer } from './targets.js'

const requesters = 10
const responders = 10
export const dataBytes = 100

/** Only messages are sent, without a limit on their rate. */
const agentsWs = { pingIntervalMs: 600_000, intervalMs: 600_000, messagesPerSecond: 1e9, burst: 1e9 }

export const ourSetup = (options: OurSetup['options']): OurSetup =>
  ({ agents: responders + requesters, responders, options: { agentsWs, ...options } })

/** `window` requests are open on each client. */
export interface Concurrency { clients: number, window: number }
export const high: Concurrency = { clients: requesters, window: 32 }
export const single: Concurrency = { clients: 1, window: 1 }
export const highText = `${requesters} clients with ${high.window} under way each, ${responders} agents`

/** Requests per second, CPU of all servers per request (µs), and their duration (ms). */
export interface RequestResult { rate: number, cpuUs: number, p50: number, p99: number }

export class RequestTarget {
  readonly name: ServerKind
  readonly #servers: BenchProcess[]
  readonly #clients: BenchProcess

  private constructor (name: ServerKind, servers: BenchProcess[], clients: BenchProcess) {
    this.name = name
    this.#servers = servers
    this.#clients = clients
  }

  /** @param setups of each server: requesters connect to the first, responders to the last */
  static async start (name: ServerKind, setups: ReadonlyArray<string | object>, accepts: boolean): Promise<RequestTarget> {
    const servers: BenchProcess[] = []
    for (const setup of setups) servers.push(await startServer(name, setup))
    const ports = [servers[0]!, servers.at(-1)!].map(({ port }) => String(port))
    const clients = await BenchProcess.start('./request-load.js', [name === 'ours' ? 'idle' : 'token', ...ports])
    const target = new RequestTarget(name, servers, clients)
    await target.#open(accepts)
    return target
  }

  async run (concurrency: Concurrency): Promise<RequestResult> {
    const command: RunCommand = { ...concurrency, ms: seconds * 1000 }
    const before = await this.#cpu()
    const { count, ms, p50, p99 } = await this.#clients.request<RunResult>({ ...command })
    return { rate: count / ms * 1000, cpuUs: (await this.#cpu() - before) / count, p50, p99 }
  }

  stop (): void {
    for (const each of [this.#clients, ...this.#servers]) each.stop()
  }

  async #open (accepts: boolean): Promise<void> {
    const names = Array.from({ length: responders + requesters }, (_, index) => `${index < responders ? 'agent' : 'requester'}-${index}`)
    const tokens = this.#servers[0]!.details.tokens as string[] | undefined ?? names
    const command: OpenCommand = {
      responders: tokens.slice(0, responders),
      requesters: tokens.slice(responders),
      capability,
      data: '-'.repeat(dataBytes - 2),
      accepts
    }
    await this.#clients.request({ ...command })
    // Each process needs the presence of the other one.
    if (this.#servers.length > 1) await sleep(500)
  }

  async #cpu (): Promise<number> {
    const used = await Promise.all(this.#servers.map(server => server.cpu()))
    return used.reduce((sum, each) => sum + each, 0)
  }
}

export function medians (results: readonly RequestResult[]): RequestResult {
  const of = (name: keyof RequestResult) => median(results.map(result => result[name]))
  return { rate: of('rate'), cpuUs: of('cpuUs'), p50: of('p50'), p99: of('p99') }
}

export const showRate = ({ rate, cpuUs }: RequestResult) => `${number(rate)}/s, ${cpuUs.toFixed(1)} µs CPU`
export const showTimes = ({ p50, p99 }: RequestResult) => `p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms`
