// The servers that the socket parts measure, each with a load generator, and rounds on all of them in turn.
import { BenchProcess } from './bench-process.js'
import type { ClientProtocolName } from './client-protocols.js'
import type { OpenCommand, OpenResult } from './load-generator.js'
import { rounds } from './report.js'
import type { OurSetup } from './socket-ours.js'
import type { ServerKind } from './socket-server.js'

export function startServer (name: ServerKind, argument: string | object): Promise<BenchProcess> {
  return BenchProcess.start('./socket-server.js', [name, typeof argument === 'string' ? argument : JSON.stringify(argument)])
}

/** A server and its clients, each in a process of its own. */
export class Target {
  readonly name: ServerKind
  readonly server: BenchProcess
  readonly clients: BenchProcess

  private constructor (name: ServerKind, server: BenchProcess, clients: BenchProcess) {
    this.name = name
    this.server = server
    this.clients = clients
  }

  /** @param loadGenerator the program that the clients run in */
  static async start (
    name: ServerKind,
    argument: string | OurSetup,
    protocol: ClientProtocolName,
    loadGenerator = './load-generator.js'
  ): Promise<Target> {
    const server = await startServer(name, argument)
    return new Target(name, server, await BenchProcess.start(loadGenerator, [protocol, String(server.port)]))
  }

  /** Opens `count` more clients. @throws when one is refused */
  async open (count: number, tokens?: string[]): Promise<OpenResult> {
    const command: OpenCommand = { open: count, ...(tokens && { tokens }) }
    const result = await this.clients.request<OpenResult>({ ...command })
    if (result.refused > 0) throw new Error(`${this.name}: ${result.refused} of ${count} sockets were refused`)
    return result
  }

  stop (): void {
    for (const each of [this.clients, this.server]) each.stop()
  }
}

/** Runs rounds on each target in turn, so that other load of the machine affects all of them. The first round is not counted. */
export async function interleave<C, T> (targets: readonly C[], round: (target: C) => Promise<T>): Promise<Map<C, T[]>> {
  const results = new Map(targets.map(each => [each, [] as T[]]))
  for (const each of targets) await round(each)
  for (let index = 0; index < rounds; index++) {
    for (const each of targets) results.get(each)?.push(await round(each))
  }
  return results
}
