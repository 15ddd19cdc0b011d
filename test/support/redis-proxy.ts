import { once } from 'node:events'
import { createConnection, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import type { RedisServer } from './redis-server.js'

/** A proxy to Redis that can be closed, or stay open without passing data. */
export class RedisProxy {
  readonly path: string
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  #isOpen = true

  private constructor (server: RedisServer, path: string) {
    this.path = path
    this.#server = createServer(socket => { this.#join(socket, createConnection(server.path)) })
  }

  static async start (server: RedisServer): Promise<RedisProxy> {
    const proxy = new RedisProxy(server, join(server.folder, `proxy-${Math.random().toString(36).slice(2)}.sock`))
    proxy.#server.listen(proxy.path)
    await once(proxy.#server, 'listening')
    return proxy
  }

  /** Stops all data on connections that have sent this text; new connections are not affected. */
  hang (word: string): number {
    const found = [...this.#sockets].filter(socket => said.get(socket)?.includes(word.toUpperCase()))
    for (const socket of found) for (const side of [socket, partners.get(socket)!]) side.unpipe().pause().removeAllListeners('data')
    return found.length
  }

  /** Passes commands of connections that have sent this text, and drops the replies. */
  mute (word: string): number {
    const found = [...this.#sockets].filter(socket => said.get(socket)?.includes(word.toUpperCase()))
    for (const socket of found) partners.get(socket)!.unpipe().pause()
    return found.length
  }

  /** Closes all connections and refuses new ones. */
  close (): void {
    this.#isOpen = false
    for (const socket of this.#sockets) socket.destroy()
  }

  reopen (): void {
    this.#isOpen = true
  }

  stop (): void {
    this.close()
    this.#server.close()
  }

  #join (socket: Socket, upstream: Socket) {
    for (const side of [socket, upstream]) {
      side.on('error', () => {})
      side.on('close', () => { socket.destroy(); upstream.destroy(); this.#sockets.delete(socket) })
    }
    if (!this.#isOpen) return socket.destroy()
    this.#sockets.add(socket)
    partners.set(socket, upstream)
    socket.on('data', data => { said.set(socket, (said.get(socket) ?? '') + data.toString('latin1').slice(0, 400).toUpperCase()) })
    socket.pipe(upstream)
    upstream.pipe(socket)
  }
}

const said = new WeakMap<Socket, string>()
const partners = new WeakMap<Socket, Socket>()
