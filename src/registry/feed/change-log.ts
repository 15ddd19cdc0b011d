import type { AgentRecord, Change } from '../../storage/agent-store.js'
import { isPublic, type Replica } from '../replica.js'
import { matches, type AgentFilter, type View } from '../query.js'
import { revisionText } from '../render.js'

/** What a reader of the feed is shown. */
export interface FeedScope {
  readonly view: View
  readonly filter: AgentFilter
}

export type Op = 'put' | 'state' | 'remove'

/** A change as a reader sees it. */
export interface ToldChange { readonly revision: string, readonly op: Op, readonly json: string }

/** Changes for one reader, and the number that they bring it to. */
export interface Batch { readonly changes: ToldChange[], readonly to: number }

const maxChanges = 500
const maxBytes = 524_288

/** Two readers with the same scope key are owed the same text. */
export const scopeKey = ({ view, filter }: FeedScope) =>
  JSON.stringify([view, filter.agent_type?.toLowerCase(), filter.capabilities, filter.status])

function shows ({ view, filter }: FeedScope, record: AgentRecord | null): record is AgentRecord {
  return record !== null && (view === 'full' || isPublic(record)) && matches(view, record, filter)
}

/** What a change looks like to somebody who only sees a part: an agent may enter or leave it without being new or gone. */
function opFor (scope: FeedScope, { event, before, after }: Change): Op | null {
  const was = shows(scope, before)
  if (!shows(scope, after)) return was ? 'remove' : null
  return !was || event === 'registered' || event === 'updated' ? 'put' : 'state'
}

/** Renders changes for readers, each once for each way it can look. */
export class Feed {
  readonly #replica: Replica
  readonly #told = new WeakMap<Change, Map<string, ToldChange>>()

  constructor (replica: Replica) {
    this.#replica = replica
  }

  /** Whether a reader is told of any of these changes. */
  tellsAny (scope: FeedScope, changes: readonly Change[]): boolean {
    return changes.some(change => opFor(scope, change) !== null)
  }

  /** One change; null when this reader does not see it. */
  render (scope: FeedScope, change: Change): ToldChange | null {
    const op = opFor(scope, change)
    if (op === null) return null
    const key = `${scope.view} ${op}`
    const ways = this.#told.get(change) ?? new Map<string, ToldChange>()
    const told = ways.get(key) ?? { revision: revisionText(this.#replica.epoch, change.n), op, json: this.#text(scope.view, op, change) }
    this.#told.set(change, ways.set(key, told))
    return told
  }

  /** The changes that this reader sees of those that follow `from`: `limit` at most, and as many as fit into one frame. */
  batch (scope: FeedScope, from: number, changes: readonly Change[], limit = maxChanges): Batch {
    const told: ToldChange[] = []
    let to = from
    let bytes = 0
    for (const change of changes) {
      const one = this.render(scope, change)
      if (one !== null) bytes += Buffer.byteLength(one.json)
      if (one !== null && told.length > 0 && (bytes > maxBytes || told.length === limit)) break
      if (one !== null) told.push(one)
      to = change.n
    }
    return { changes: told, to }
  }

  static readonly maxChanges = maxChanges

  #text (view: View, op: Op, { n, id, before, after, reason }: Change): string {
    const head = `{"revision":"${revisionText(this.#replica.epoch, n)}","op":"${op}","agent_id":"${id}"`
    const tail = `${before ? `,"previous":"${before.state}"` : ''},"reason":"${reason}"}`
    if (op === 'remove') return head + tail
    const state = `,"state":"${after!.state}"`
    return op === 'state' ? head + state + tail : `${head},"agent":${this.#agent(view, after!)}${state}${tail}`
  }

  #agent (view: View, record: AgentRecord): string {
    const rendering = this.#replica.render(record)
    return view === 'full' ? rendering.full() : rendering.public()!
  }
}
