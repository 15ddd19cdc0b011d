import type { Replica, ReplicaEntry } from '../registry/replica.js'

/** Largest frame in bytes: common clients close the connection when a frame exceeds 1 MiB. */
export const maxFrameBytes = 1_048_576
/** Bytes reserved for the envelope and the members beside a list. */
export const envelopeBytes = 4_096

const maxRemembered = 1_000
const maxTypes = 1_000

export type DataFrameType = 'monitoring' | 'health' | 'agents' | 'logs' | 'alert'

/** RFC 3339, UTC, with milliseconds. */
export const isoTime = (ms: number) => new Date(ms).toISOString()

/**
 * The text of a dashboard frame.
 * @param at epoch milliseconds
 * @param data JSON text
 */
export function frameText (type: string, at: number, data: string): string {
  return `{"type":"${type}","timestamp":"${isoTime(at)}","data":${data}}`
}

/** Rounds to at most `places` decimals; returns 0 for numbers that are not finite, which JSON cannot represent. */
export function round (value: number, places: number): number {
  const factor = 10 ** places
  return Number.isFinite(value) ? Math.round(value * factor) / factor : 0
}

/** The longest prefix of `texts` that fits into a JSON array of `maxBytes`. */
function takeWithin (texts: Iterable<string>, maxBytes: number): string[] {
  const taken: string[] = []
  let bytes = 0
  for (const text of texts) {
    bytes += Buffer.byteLength(text) + 1
    if (bytes > maxBytes) break
    taken.push(text)
  }
  return taken
}

const none: ReadonlySet<string> = new Set()

function * fragments (entries: Iterable<ReplicaEntry>, excluded = none): Generator<string> {
  for (const { record, rendering } of entries) {
    if (!excluded.has(record.id)) yield rendering.full()
  }
}

/** Builds the data of `agents` frames from rendered fragments, without serialising agents again. */
export class AgentsFrame {
  readonly #replica: Replica
  readonly #maxBytes: number
  /** Agents that changed most recently, the latest last. */
  readonly #changed = new Set<string>()

  constructor ({ replica, maxBytes = maxFrameBytes }: { replica: Replica, maxBytes?: number }) {
    this.#replica = replica
    this.#maxBytes = maxBytes
  }

  /** Records that an agent has changed: a truncated frame begins with the agents that changed most recently. */
  changed (id: string): void {
    this.#changed.delete(id)
    this.#changed.add(id)
    if (this.#changed.size > maxRemembered) {
      const [oldest = ''] = this.#changed
      this.#changed.delete(oldest)
    }
  }

  /** JSON text: all agents, or those that changed most recently followed by the newest registrations, with `truncated`. */
  data (): string {
    const counts = this.#counts()
    const room = this.#maxBytes - envelopeBytes - Buffer.byteLength(counts)
    const all = takeWithin(fragments(this.#replica.entries), room)
    if (all.length === this.#replica.size) return `{"agents":[${all.join()}],${counts}}`
    return `{"agents":[${this.#selection(room).join()}],${counts},"truncated":true}`
  }

  #counts (): string {
    const { size: total, deadCount: dead } = this.#replica
    const types = Object.entries(this.#replica.countTypes()).sort(([, a], [, b]) => b - a).slice(0, maxTypes)
    const summary = total === 0 ? {} : { alive: total - dead, dead }
    const members = { total_count: total, active_count: total - dead, agent_types: Object.fromEntries(types), status_summary: summary }
    return JSON.stringify(members).slice(1, -1)
  }

  #selection (room: number): string[] {
    const changed = [...this.#changed].reverse().flatMap(id => this.#replica.get(id) ?? [])
    const first = takeWithin(fragments(changed), room)
    return [...first, ...takeWithin(fragments(this.#replica.newest(), this.#changed), room - Buffer.byteLength(first.join()) - 1)]
  }
}
