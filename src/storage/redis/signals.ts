import type { Connections } from './connections.js'

/** Words to other processes: those of one tick to one process are one message. */
export class Signals {
  readonly #connections: Connections
  readonly #process: string
  readonly #heard: (from: string, body: string) => void
  #waiting = new Map<string, string[]>()

  constructor (connections: Connections, process: string, heard: (from: string, body: string) => void) {
    this.#connections = connections
    this.#process = process
    this.#heard = heard
  }

  /** The Redis channel of this process. */
  get name () { return this.#nameOf(this.#process) }

  send (process: string, body: string): void {
    const waiting = this.#waiting.get(process)
    if (waiting) waiting.push(body)
    else {
      if (this.#waiting.size === 0) setImmediate(() => { this.#flush() })
      this.#waiting.set(process, [body])
    }
  }

  receive (text: string): void {
    const [from, ...bodies] = JSON.parse(text) as [string, ...string[]]
    for (const body of bodies) this.#heard(from, body)
  }

  clear (): void {
    this.#waiting.clear()
  }

  #flush () {
    const waiting = this.#waiting
    this.#waiting = new Map()
    for (const [process, bodies] of waiting) this.#publish(process, JSON.stringify([this.#process, ...bodies]))
  }

  /** What cannot be said now is lost: nobody waits for a word without a deadline. */
  #publish (process: string, text: string) {
    if (process === this.#process) this.receive(text)
    else Promise.allSettled([this.#connections.links.commands.client.publish(this.#nameOf(process), text)])
  }

  #nameOf (process: string): string {
    return `${this.#connections.base}process:${process}`
  }
}
