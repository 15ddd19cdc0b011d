import type { AgentRecord, Change } from '../../storage/agent-store.js'
import { matches, type AgentFilter } from '../query.js'
import { revisionText, type View } from '../render.js'
import { isPublic, type Replica } from '../replica.js'

/** The part of the feed that a subscriber receives. */
export interface FeedScope {
  readonly view: View
  readonly filter: AgentFilter
}

type DeltaOp = 'put' | 'state' | 'remove'

/** A change as the subscribers of a scope receive it. */
interface Delta { readonly revision: string, readonly op: DeltaOp, readonly json: string }

/** Deltas, and the number of the last change that they cover. */
interface DeltaBatch { readonly deltas: Delta[], readonly to: number }

/** A page of the agents at `revision`. `agents` are JSON texts. */
interface SnapshotPage { readonly revision: string, readonly agents: readonly string[], readonly last: boolean }

/** The revision that a subscriber has reached, the number of agents it should have and, for the whole feed, their digest. */
interface Bookmark { readonly revision: string, readonly count: number, readonly digest?: string }

/** Encodes the feed for one transport. Subscribers with the same encoding share the encoded output. */
export interface FeedEncoding<T> {
  /** Unique among all encodings. */
  readonly name: string
  /** @param revision the revision that a subscriber has after these deltas */
  changes (deltas: readonly Delta[], revision: string): T
  page (page: SnapshotPage): T
  /** The feed does not continue from the subscriber's revision; pages of a snapshot follow. */
  resync (revision: string): T
  bookmark (bookmark: Bookmark): T
}

const maxDeltas = 500
const maxBytes = 524_288

/** A JSON array of deltas. */
export const deltaList = (deltas: readonly Delta[]) => `[${deltas.map(({ json }) => json).join()}]`

/** The members of a snapshot page as JSON, without the braces. */
export const pageMembers = ({ revision, agents, last }: SnapshotPage) =>
  `"revision":"${revision}","agents":[${agents.join()}],"last":${last}`

/** Subscribers whose scopes have the same key receive the same deltas. */
export const scopeKey = ({ view, filter }: FeedScope) =>
  JSON.stringify([view, filter.agent_type?.toLowerCase(), filter.capabilities, filter.status])

function shows ({ view, filter }: FeedScope, record: AgentRecord | null): record is AgentRecord {
  return record !== null && (view === 'full' || isPublic(record)) && matches(view, record, filter)
}

/** An agent may enter or leave a scope without being registered or unregistered. Null if the scope does not show the change. */
function opFor (scope: FeedScope, { event, before, after }: Change): DeltaOp | null {
  const wasShown = shows(scope, before)
  if (!shows(scope, after)) return wasShown ? 'remove' : null
  return !wasShown || event === 'registered' || event === 'updated' ? 'put' : 'state'
}

/** Renders changes as deltas, each variant of a change once. */
export class DeltaRenderer {
  static readonly maxDeltas = maxDeltas
  readonly #replica: Replica
  readonly #rendered = new WeakMap<Change, Map<string, Delta>>()

  constructor (replica: Replica) {
    this.#replica = replica
  }

  /** Whether a scope shows any of these changes. */
  showsAny (scope: FeedScope, changes: readonly Change[]): boolean {
    return changes.some(change => opFor(scope, change) !== null)
  }

  /** @returns null if the scope does not show the change */
  render (scope: FeedScope, change: Change): Delta | null {
    const op = opFor(scope, change)
    if (op === null) return null
    const key = `${scope.view} ${op}`
    const variants = this.#rendered.get(change) ?? new Map<string, Delta>()
    const delta = variants.get(key) ?? this.#delta(scope.view, op, change)
    this.#rendered.set(change, variants.set(key, delta))
    return delta
  }

  /** The deltas of `changes`, which follow `from`: at most `limit`, and at most 512 KiB unless a single delta is larger. */
  batch (scope: FeedScope, from: number, changes: readonly Change[], limit = maxDeltas): DeltaBatch {
    const deltas: Delta[] = []
    let to = from
    let bytes = 0
    for (const change of changes) {
      const delta = this.render(scope, change)
      if (delta !== null) {
        bytes += Buffer.byteLength(delta.json)
        if (deltas.length > 0 && (bytes > maxBytes || deltas.length === limit)) break
        deltas.push(delta)
      }
      to = change.n
    }
    return { deltas, to }
  }

  #delta (view: View, op: DeltaOp, change: Change): Delta {
    return { revision: revisionText(this.#replica.epoch, change.n), op, json: this.#json(view, op, change) }
  }

  #json (view: View, op: DeltaOp, { n, id, before, after, reason }: Change): string {
    const head = `{"revision":"${revisionText(this.#replica.epoch, n)}","op":"${op}","agent_id":"${id}"`
    const tail = `${before ? `,"previous":"${before.state}"` : ''},"reason":"${reason}"}`
    if (op === 'remove' || after === null) return head + tail
    const state = `,"state":"${after.state}"`
    return op === 'state' ? head + state + tail : `${head},"agent":${this.#replica.render(after).of(view)}${state}${tail}`
  }
}
