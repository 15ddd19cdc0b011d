import { randomUUID } from 'node:crypto'
import type { Messaging } from '../messaging/messaging.js'
import { closeCodes } from '../protocol/codes.js'
import type { Hub } from './hub.js'

interface Waiting {
  /** Processes that have not said how many they had. */
  readonly processes: Set<string>
  closed: number
  readonly done: () => void
}

/** How long other processes are waited for: they close what they have, whether or not that is heard of. */
const waitMs = 1000

/** Closes all connections of a peer that takes part, in every process. */
export class Disconnects {
  readonly #hub: Hub
  readonly #messaging: Messaging
  readonly #waiting = new Map<string, Waiting>()

  constructor ({ hub, messaging }: { hub: Hub, messaging: Messaging }) {
    this.#hub = hub
    this.#messaging = messaging
    messaging.processMessages.on('disconnect', (from, body) => { this.#hear(from, body) })
    messaging.processMessages.on('disconnected', (from, body) => { this.#count(from, body) })
  }

  /** @returns how many there were, as far as other processes said so in time */
  async disconnect (peerId: string): Promise<number> {
    const { broker: { process: self }, presence, processMessages } = this.#messaging
    const here = this.#closeHere(peerId)
    const processes = presence.processesOf(peerId).filter(process => process !== self)
    if (processes.length === 0) return here
    const id = randomUUID()
    const elsewhere = this.#wait(id, processes)
    for (const process of processes) processMessages.send(process, 'disconnect', JSON.stringify({ id, peerId }))
    return here + await elsewhere
  }

  #wait (id: string, processes: string[]): Promise<number> {
    return new Promise(resolve => {
      const done = () => {
        clearTimeout(timer)
        this.#waiting.delete(id)
        resolve(waiting.closed)
      }
      const timer = setTimeout(done, waitMs).unref()
      const waiting: Waiting = { processes: new Set(processes), closed: 0, done }
      this.#waiting.set(id, waiting)
    })
  }

  #hear (from: string, body: string) {
    const { id, peerId } = JSON.parse(body) as { id: string, peerId: string }
    this.#messaging.processMessages.send(from, 'disconnected', JSON.stringify({ id, closed: this.#closeHere(peerId) }))
  }

  #count (from: string, body: string) {
    const { id, closed } = JSON.parse(body) as { id: string, closed: number }
    const waiting = this.#waiting.get(id)
    if (!waiting?.processes.delete(from)) return
    waiting.closed += closed
    if (waiting.processes.size === 0) waiting.done()
  }

  #closeHere (peerId: string): number {
    const connections = [...this.#hub.connections('agents'), ...this.#hub.connections('v1')].filter(connection => connection.isPeer && connection.isOpen && connection.peerId === peerId)
    for (const connection of connections) connection.close(closeCodes.disconnected, 'Disconnected by an admin')
    return connections.length
  }
}
