// Servers that take requests, one or two that are one over Redis, with those who ask and those who are asked.
import { setTimeout as sleep } from 'node:timers/promises'
import { number, startServer } from './contest.js'
import type { Asked, AskWish, CrewWish } from './crew.js'
import { seconds, Server } from './rounds.js'
import { capability, type OurSetup } from './socket-ours.js'
import type { ServerKind } from './socket-server.js'
import { median } from './statistics.js'

const askers = 10
const serving = 10
export const dataBytes = 100

/** Nothing but messages may come, and as many as are sent. */
export const raised = { agentsWs: { pingIntervalMs: 600_000, intervalMs: 600_000, messagesPerSecond: 1e9, burst: 1e9 } } satisfies OurSetup['options']

export const ourSetup = (options: OurSetup['options']): OurSetup => ({ agents: serving + askers, serving, options: { ...raised, ...options } })

/** How many each of so many has under way. */
export interface Pace { askers: number, window: number }
export const busy: Pace = { askers, window: 32 }
export const light: Pace = { askers: 1, window: 1 }
export const paceText = `${askers} clients with ${busy.window} under way each, ${serving} agents`

/** Requests a second, CPU of all servers for each (µs), and how long they took (ms). */
export interface Flow { rate: number, cpuUs: number, p50: number, p99: number }

export class Team {
  readonly name: ServerKind
  readonly #servers: Server[]
  readonly #crew: Server

  private constructor (name: ServerKind, servers: Server[], crew: Server) {
    this.name = name
    this.#servers = servers
    this.#crew = crew
  }

  /** @param setups of each server: the first is for those who ask, the last for those who are asked */
  static async start (name: ServerKind, setups: ReadonlyArray<string | object>, accepts: boolean): Promise<Team> {
    const servers: Server[] = []
    for (const setup of setups) servers.push(await startServer(name, setup))
    const ports = [servers[0]!, servers.at(-1)!].map(({ port }) => String(port))
    const team = new Team(name, servers, await Server.start('./crew.js', [name === 'ours' ? 'idle' : 'token', ...ports]))
    await team.#open(accepts)
    return team
  }

  async run (pace: Pace): Promise<Flow> {
    const wish: AskWish = { ...pace, ms: seconds * 1000 }
    const before = await this.#cpu()
    const { count, ms, p50, p99 } = await this.#crew.ask<Asked>({ ...wish })
    return { rate: count / ms * 1000, cpuUs: (await this.#cpu() - before) / count, p50, p99 }
  }

  stop (): void {
    for (const child of [this.#crew, ...this.#servers]) child.stop()
  }

  async #open (accepts: boolean): Promise<void> {
    const names = Array.from({ length: serving + askers }, (_, index) => `${index < serving ? 'agent' : 'asker'}-${index}`)
    const tokens = this.#servers[0]!.details.tokens as string[] | undefined ?? names
    const wish: CrewWish = { serving: tokens.slice(0, serving), asking: tokens.slice(serving), capability, data: '-'.repeat(dataBytes - 2), accepts }
    await this.#crew.ask({ ...wish })
    // Until each process knows who is connected to the other.
    if (this.#servers.length > 1) await sleep(500)
  }

  async #cpu (): Promise<number> {
    const used = await Promise.all(this.#servers.map(server => server.cpu()))
    return used.reduce((sum, each) => sum + each, 0)
  }
}

export function middle (flows: readonly Flow[]): Flow {
  const of = (name: keyof Flow) => median(flows.map(flow => flow[name]))
  return { rate: of('rate'), cpuUs: of('cpuUs'), p50: of('p50'), p99: of('p99') }
}

export const showRate = ({ rate, cpuUs }: Flow) => `${number(rate)}/s, ${cpuUs.toFixed(1)} µs CPU`
export const showTimes = ({ p50, p99 }: Flow) => `p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms`
