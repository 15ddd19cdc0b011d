// What the socket rows share: a server with its clients, and rounds on ours and on the peer in turn.
import type { Opened, OpenWish } from './crowd.js'
import type { DialectName } from './dialects.js'
import { rounds, Server } from './rounds.js'
import type { OurSetup } from './socket-ours.js'
import type { ServerKind } from './socket-server.js'

export function startServer (name: ServerKind, argument: string | object): Promise<Server> {
  return Server.start('./socket-server.js', [name, typeof argument === 'string' ? argument : JSON.stringify(argument)])
}

/** A server and its clients, each in a process of its own. */
export class Contestant {
  readonly name: ServerKind
  readonly server: Server
  readonly crowd: Server

  private constructor (name: ServerKind, server: Server, crowd: Server) {
    this.name = name
    this.server = server
    this.crowd = crowd
  }

  /** @param clients the program that they run in */
  static async start (name: ServerKind, argument: string | OurSetup, dialect: DialectName, clients = './crowd.js'): Promise<Contestant> {
    const server = await startServer(name, argument)
    return new Contestant(name, server, await Server.start(clients, [dialect, String(server.port)]))
  }

  /** Opens as many clients more. @throws when one is refused */
  async open (count: number, tokens?: string[]): Promise<Opened> {
    const wish: OpenWish = { open: count, ...(tokens && { tokens }) }
    const opened = await this.crowd.ask<Opened>({ ...wish })
    if (opened.refused > 0) throw new Error(`${this.name}: ${opened.refused} of ${count} sockets were refused`)
    return opened
  }

  stop (): void {
    for (const child of [this.crowd, this.server]) child.stop()
  }
}

/** Rounds on each in turn, so that what else the machine does falls on all of them. The first is to get warm. */
export async function interleave<C, T> (contestants: readonly C[], round: (contestant: C) => Promise<T>): Promise<Map<C, T[]>> {
  const results = new Map(contestants.map(each => [each, [] as T[]]))
  for (const each of contestants) await round(each)
  for (let index = 0; index < rounds; index++) {
    for (const each of contestants) results.get(each)!.push(await round(each))
  }
  return results
}

export const us = (value: number) => `${value.toFixed(2)} µs`
export const number = (value: number) => Math.round(value).toLocaleString('en')
