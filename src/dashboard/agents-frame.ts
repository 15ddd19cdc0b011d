import type { Replica, ReplicaEntry } from '../registry/replica.js'
import { envelopeBytes, maxFrameBytes, takeWithin } from './frame.js'

const maxRemembered = 1_000
const maxTypes = 1_000

const nobody: ReadonlySet<string> = new Set()

function * fragments (entries: Iterable<ReplicaEntry>, skipped = nobody): Generator<string> {
  for (const { record, rendering } of entries) {
    if (!skipped.has(record.id)) yield rendering.full()
  }
}

/** The data of `agents` frames: ready fragments joined, nothing is serialised again. */
export class AgentsFrame {
  readonly #replica: Replica
  readonly #maxBytes: number
  /** Agents that changed last, the latest last. */
  readonly #changed = new Set<string>()

  constructor ({ replica, maxBytes = maxFrameBytes }: { replica: Replica, maxBytes?: number }) {
    this.#replica = replica
    this.#maxBytes = maxBytes
  }

  /** An agent has changed: it is among the first when a frame is cut. */
  changed (id: string): void {
    this.#changed.delete(id)
    this.#changed.add(id)
    if (this.#changed.size > maxRemembered) this.#changed.delete(this.#changed.values().next().value!)
  }

  /** JSON text: all agents, or what changed last and then the newest registered, with `truncated`. */
  data (): string {
    const counts = this.#counts()
    const room = this.#maxBytes - envelopeBytes - Buffer.byteLength(counts)
    const all = takeWithin(fragments(this.#replica.entries), room)
    if (all.length === this.#replica.size) return `{"agents":[${all.join()}],${counts}}`
    return `{"agents":[${this.#some(room).join()}],${counts},"truncated":true}`
  }

  #counts (): string {
    const { size: total, deadCount: dead } = this.#replica
    const types = Object.entries(this.#replica.countTypes()).sort(([, a], [, b]) => b - a).slice(0, maxTypes)
    const summary = total === 0 ? {} : { alive: total - dead, dead }
    const members = { total_count: total, active_count: total - dead, agent_types: Object.fromEntries(types), status_summary: summary }
    return JSON.stringify(members).slice(1, -1)
  }

  #some (room: number): string[] {
    const changed = [...this.#changed].reverse().flatMap(id => this.#replica.get(id) ?? [])
    const first = takeWithin(fragments(changed), room)
    return [...first, ...takeWithin(fragments(this.#replica.newest(), this.#changed), room - Buffer.byteLength(first.join()) - 1)]
  }
}
