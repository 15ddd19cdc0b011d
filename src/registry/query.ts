import { statusOf } from '../protocol/schemas/agent.js'
import type { AgentRecord } from '../storage/agent-store.js'
import type { View } from './render.js'
import { isPublic, type ReplicaEntry, type Replica } from './replica.js'

/** The conditions of a query, all of which an agent must meet. Absent members match every agent. */
export interface AgentFilter {
  /** Case-insensitive. */
  agent_type?: string
  /** The agent must have all of them. */
  capabilities?: readonly string[]
  status?: 'alive' | 'dead'
}

/** Whether a record matches a filter, judged by the fields that the view shows. */
export function matches (view: View, record: AgentRecord, { agent_type: type, capabilities, status }: AgentFilter): boolean {
  const shown = view === 'public' ? record.publicFacets ?? record : record
  return (type === undefined || shown.type.toLowerCase() === type.toLowerCase()) &&
    (status === undefined || statusOf(record.state) === status) &&
    (capabilities === undefined || capabilities.every(capability => shown.capabilities.includes(capability)))
}

/** The smallest index that contains every match. */
function candidates (replica: Replica, view: View, { agent_type: type, capabilities = [] }: AgentFilter): Iterable<ReplicaEntry> {
  // The indexes hold registered types and capabilities; a `publicView` hook may show others.
  if (view === 'public' && replica.hasPublicFacets) return replica.discoverable
  const sets = capabilities.map(capability => replica.withCapability(capability))
  if (type !== undefined) sets.push(replica.ofType(type))
  if (view === 'public') sets.push(replica.discoverable)
  if (sets.length === 0) return replica.entries
  return sets.reduce((smallest, set) => set.size < smallest.size ? set : smallest)
}

/** The entries that match. The full view without a filter lists them in the order of registration. */
export function * select (replica: Replica, view: View, filter: AgentFilter): Generator<ReplicaEntry> {
  for (const entry of candidates(replica, view, filter)) {
    if ((view === 'full' || isPublic(entry.record)) && matches(view, entry.record, filter)) yield entry
  }
}

/** At most `limit` matches, after the first `offset`. */
export function slice (
  replica: Replica, view: View, filter: AgentFilter, { offset, limit }: { offset: number, limit: number }
): ReplicaEntry[] {
  const entries: ReplicaEntry[] = []
  let index = 0
  for (const entry of select(replica, view, filter)) {
    if (entries.length === limit) break
    if (index++ >= offset) entries.push(entry)
  }
  return entries
}

/** The number of matches. Costs O(1) without a filter. */
export function count (replica: Replica, view: View, filter: AgentFilter): number {
  if (Object.values(filter).every(value => value === undefined)) return view === 'full' ? replica.size : replica.discoverable.size
  let total = 0
  const matching = select(replica, view, filter)
  while (!matching.next().done) total++
  return total
}

type Versioned = Pick<Replica, 'version'>

/** Values computed from the replica, by key. They are dropped when the replica changes; at most `limit` are kept. */
export class VersionedCache<T = string> {
  readonly #replica: Versioned
  readonly #limit: number
  readonly #values = new Map<string, T>()
  #version = -1

  constructor (replica: Versioned, limit = 64) {
    this.#replica = replica
    this.#limit = limit
  }

  get (key: string, make: () => T): T {
    if (this.#version !== this.#replica.version) this.#values.clear()
    this.#version = this.#replica.version
    const cached = this.#values.get(key)
    if (cached !== undefined) return cached
    const value = make()
    if (this.#values.size < this.#limit) this.#values.set(key, value)
    return value
  }
}

/**
 * Caches a text that contains the current time: it is made once per millisecond at most, and again when the replica
 * has changed.
 */
export function perMillisecondCache (replica: Versioned, make: () => string): () => string {
  let text = ''
  let madeAt = -1
  let version = -1
  return function cachedText () {
    const now = Date.now()
    if (now === madeAt && version === replica.version) return text
    text = make()
    madeAt = now
    version = replica.version
    return text
  }
}
