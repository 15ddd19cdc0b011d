import { once } from 'node:events'
import { createConnection, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import type { Test } from 'tap'
import { Remote } from '../../support/harness.js'

interface Pair { client: Socket, server: Socket }

const everyMs = 50

/** A proxy to a registry that can become slow or drop all data. */
export class Tunnel extends Remote {
  readonly #pairs = new Set<Pair>()
  readonly #timer: NodeJS.Timeout
  #bytesPerSecond = Infinity

  private constructor (server: Server) {
    super(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    this.#timer = setInterval(() => { this.#trickle() }, everyMs)
  }

  /** It ends with the test. */
  static async open (t: Test, { base }: Remote): Promise<Tunnel> {
    const server = createServer(
      socket => { tunnel.#join({ client: socket, server: createConnection(Number(new URL(base).port), '127.0.0.1') }) }
    )
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const tunnel = new Tunnel(server)
    t.teardown(() => { tunnel.#close(server) })
    return tunnel
  }

  /** Limits the bytes per second to each client; 0 stops them. */
  restrict (bytesPerSecond: number): void {
    this.#bytesPerSecond = bytesPerSecond
    for (const { client, server } of this.#pairs) server.unpipe(client).pause()
  }

  /** Passes all queued data and what follows. */
  release (): void {
    this.#bytesPerSecond = Infinity
    for (const { client, server } of this.#pairs) server.pipe(client)
  }

  /** Drops all data in both directions, without closing connections. */
  swallow (): void {
    this.restrict(0)
    for (const { client, server } of this.#pairs) client.unpipe(server).resume()
  }

  #join (pair: Pair) {
    const { client, server } = pair
    this.#pairs.add(pair)
    for (const side of [client, server]) {
      side.on('error', () => {})
      side.on('close', () => { client.destroy(); server.destroy(); this.#pairs.delete(pair) })
    }
    client.pipe(server)
    server.pipe(client)
  }

  #trickle () {
    if (this.#bytesPerSecond === Infinity || this.#bytesPerSecond === 0) return
    const size = this.#bytesPerSecond * everyMs / 1000
    for (const { client, server } of this.#pairs) {
      const chunk = server.read(Math.min(size, server.readableLength))
      if (chunk) client.write(chunk)
    }
  }

  #close (server: Server) {
    clearInterval(this.#timer)
    server.close()
    for (const { client, server } of this.#pairs) { client.destroy(); server.destroy() }
  }
}
