import { statusOf } from '../protocol/schemas/agent.js'
import type { AgentRecord } from '../storage/agent-store.js'
import { isPublic, type Entry, type Replica } from './replica.js'

/** What an agent must be like to be found; what is left out does not matter. */
export interface AgentFilter {
  /** In any case. */
  agent_type?: string
  /** All of them. */
  capabilities?: readonly string[]
  status?: 'alive' | 'dead'
}

/** What a reader may see: everything, or only what discovery shows. */
export type View = 'full' | 'public'

/** Whether a record is like the filter as far as the reader may see it. */
export function matches (view: View, record: AgentRecord, { agent_type: type, capabilities, status }: AgentFilter): boolean {
  const shown = view === 'public' ? record.publicFacets ?? record : record
  return (type === undefined || shown.type.toLowerCase() === type.toLowerCase()) &&
    (status === undefined || statusOf(record.state) === status) &&
    (capabilities === undefined || capabilities.every(capability => shown.capabilities.includes(capability)))
}

/** The smallest set of entries that holds every match. */
function candidates (replica: Replica, view: View, { agent_type: type, capabilities = [] }: AgentFilter): Iterable<Entry> {
  // The indexes hold what agents registered, which is not always what the public is shown.
  if (view === 'public' && replica.hasPublicFacets) return replica.discoverable
  const sets = capabilities.map(capability => replica.withCapability(capability))
  if (type !== undefined) sets.push(replica.ofType(type))
  if (view === 'public') sets.push(replica.discoverable)
  if (sets.length === 0) return replica.entries
  return sets.reduce((least, set) => set.size < least.size ? set : least)
}

/** Entries that match, in the order of registration as far as states allow. */
export function * select (replica: Replica, view: View, filter: AgentFilter): Generator<Entry> {
  for (const entry of candidates(replica, view, filter)) {
    if ((view === 'full' || isPublic(entry.record)) && matches(view, entry.record, filter)) yield entry
  }
}

/** At most `limit` matches, after the first `offset`. */
export function slice (replica: Replica, view: View, filter: AgentFilter, { offset, limit }: { offset: number, limit: number }): Entry[] {
  const entries: Entry[] = []
  let index = 0
  for (const entry of select(replica, view, filter)) {
    if (entries.length === limit) break
    if (index++ >= offset) entries.push(entry)
  }
  return entries
}

/** How many match. Without a filter nothing is counted. */
export function count (replica: Replica, view: View, filter: AgentFilter): number {
  if (Object.values(filter).every(value => value === undefined)) return view === 'full' ? replica.size : replica.discoverable.size
  let total = 0
  const matching = select(replica, view, filter)
  while (!matching.next().done) total++
  return total
}
