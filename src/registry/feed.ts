import type { AgentRecord, Change } from '../store/store.js'
import { isPublic, type Replica } from './replica.js'
import { matches, type AgentFilter, type View } from './query.js'
import { revisionText } from './render.js'

/** What a reader of the feed is shown. */
export interface FeedScope {
  readonly view: View
  readonly filter: AgentFilter
}

type Op = 'put' | 'state' | 'remove'

/** A batch of changes as JSON, and the number that it brings its reader to. */
export interface Batch { changes: string[], to: number }

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
  readonly #rendered = new WeakMap<Change, Map<string, string>>()

  constructor (replica: Replica) {
    this.#replica = replica
  }

  /** One change as JSON; null when this reader does not see it. */
  render (scope: FeedScope, change: Change): string | null {
    const op = opFor(scope, change)
    if (op === null) return null
    const key = `${scope.view} ${op}`
    const texts = this.#rendered.get(change) ?? new Map<string, string>()
    const text = texts.get(key) ?? this.#text(scope.view, op, change)
    this.#rendered.set(change, texts.set(key, text))
    return text
  }

  /** The changes after `from` that this reader sees, as many as fit into one frame. */
  batch (scope: FeedScope, from: number, changes: readonly Change[]): Batch {
    const batch: Batch = { changes: [], to: from }
    let bytes = 0
    for (const change of changes) {
      const text = this.render(scope, change)
      if (text !== null) bytes += Buffer.byteLength(text)
      if (bytes > maxBytes && batch.changes.length > 0) break
      if (text !== null) batch.changes.push(text)
      batch.to = change.n
    }
    return batch
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
