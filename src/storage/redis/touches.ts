import type { Connections, Message } from './connections.js'
import type { AgentRecord } from '../agent-store.js'
import { isOf, type Touch } from './feed.js'

const touchesPerMessage = 1000

/** Tells other processes of signs of life, the last of each agent, some times a second. */
export class Touches {
  readonly #connections: Connections
  readonly #process: string
  #waiting = new Map<string, Touch>()

  constructor (connections: Connections, process: string) {
    this.#connections = connections
    this.#process = process
  }

  /** @param record the agent as it is now */
  add (touch: Touch, record: Pick<AgentRecord, 'created'>): void {
    const waiting = this.#waiting.get(touch.id)
    const metrics = touch.metrics ?? (waiting && isOf(record, waiting.n) ? waiting.metrics : undefined)
    this.#waiting.set(touch.id, { ...touch, ...(metrics !== undefined && { metrics }) })
  }

  /** What cannot be sent is lost: others read everything anew after an outage. */
  async flush (): Promise<void> {
    if (this.#waiting.size === 0) return
    const touches = [...this.#waiting.values()]
    this.#waiting = new Map()
    for (let first = 0; first < touches.length; first += touchesPerMessage) {
      await this.#connections.publish({ type: 'touched', from: this.#process, touches: touches.slice(first, first + touchesPerMessage) })
    }
  }

  /** The touches of another process. */
  read (message: Message): readonly Touch[] {
    return message.from === this.#process ? [] : message.touches as Touch[]
  }
}
