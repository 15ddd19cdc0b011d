import type { Connection } from './connection.js'

const pauseMs = 100

/** Connections that are not read for a moment since far too much comes from them. One timer for all, while there are any. */
export class Throttle {
  #connections = new Set<Connection>()
  #timer: NodeJS.Timeout | undefined

  has (connection: Connection): boolean {
    return this.#connections.has(connection)
  }

  add (connection: Connection): void {
    this.#connections.add(connection)
    connection.transport.pause()
    this.#timer ??= setTimeout(() => { this.#release() }, pauseMs).unref()
  }

  /** Everybody is read again. */
  stop (): void {
    clearTimeout(this.#timer)
    this.#release()
  }

  #release () {
    const connections = this.#connections
    this.#connections = new Set()
    this.#timer = undefined
    for (const connection of connections) connection.readOn()
  }
}
