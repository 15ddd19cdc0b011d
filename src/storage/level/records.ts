import { Type, type Static, type TSchema } from '@sinclair/typebox'
import { State } from '../../protocol/schemas/common.js'
import { checkerOf } from '../../protocol/validation.js'
import type { AgentRecord, Change, RecordContent } from '../agent-store.js'
import { keyValueKinds, type KeyValueEntry } from '../kv-store.js'
import { damaged } from './header.js'

const Count = Type.Integer({ minimum: 0 })
const Time = Type.Number()
const Facets = Type.Object({ type: Type.String(), capabilities: Type.Array(Type.String()) })
const metric = Type.Number()

const StoredMetrics = Type.Object({
  success_rate: metric,
  avg_response_time: metric,
  total_requests: metric,
  reputation_score: metric,
  requests_processed: metric,
  average_response_time: metric,
  error_rate: metric,
  lastActive: Time
})

/** A record without its content, which is stored separately because it changes rarely and is large. */
export const RecordHead = Type.Object({
  ownerKey: Type.Union([Type.String(), Type.Null()]),
  registeredAt: Time,
  created: Count,
  incarnation: Type.Number(),
  revision: Count,
  state: State,
  lastSeen: Time,
  held: Type.Boolean(),
  metrics: Type.Union([StoredMetrics, Type.Null()])
})
type RecordHead = Static<typeof RecordHead>

/** `at` is the end of the lease or retention, or the start of the hold, without shifts. */
const StoredHead = Type.Composite([RecordHead, Type.Object({ at: Time })])
export type StoredHead = Static<typeof StoredHead>

export const Content = Type.Object({
  body: Type.String(),
  type: Type.String(),
  capabilities: Type.Array(Type.String()),
  publicBody: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  publicFacets: Type.Optional(Facets)
})

const changeEvents = ['registered', 'updated', 'alive', 'dead', 'unregistered', 'state'] as const

/** `content` is the content before the change, if the change replaced it. */
const StoredChange = Type.Object({
  event: Type.Union(changeEvents.map(name => Type.Literal(name))),
  id: Type.String(),
  reason: Type.String(),
  before: Type.Union([RecordHead, Type.Null()]),
  after: Type.Union([RecordHead, Type.Null()]),
  content: Type.Optional(Content)
})
type StoredChange = Static<typeof StoredChange>

/** The changes of one batch, without a gap. The key has the number of the first one. */
const StoredChanges = Type.Array(StoredChange, { minItems: 1 })

const Meta = Type.Object({
  epoch: Type.String({ minLength: 1 }),
  revision: Count,
  incarnation: Type.Number(),
  /** The time up to which heartbeats are written, by the clock of the process that wrote them. */
  alive: Time,
  /** How far all leases and holds, and all retentions, were shifted since their times were written (ms). */
  leaseShift: Type.Number(),
  graveShift: Type.Number()
})
export type Meta = Static<typeof Meta>

const StoredEntry = Type.Object({ value: Type.String(), until: Time })
type StoredEntry = Static<typeof StoredEntry>

export const metaKey = 'meta'
export const headKey = (id: string) => `agent!${id}`
export const contentKey = (id: string) => `content!${id}`
/** @param first the number of the first change of a batch */
export const changesKey = (first: number) => `changes!${String(first).padStart(16, '0')}`
export const entryKey = (kind: string, key: string) => `state!${kind}!${key}`

export function headOf (record: AgentRecord): RecordHead {
  const { ownerKey, registeredAt, created, incarnation, revision, state, lastSeen, held, metrics } = record
  return { ownerKey, registeredAt, created, incarnation, revision, state, lastSeen, held, metrics }
}

export function contentOf ({ body, type, capabilities, publicBody, publicFacets }: RecordContent): RecordContent {
  return { body, type, capabilities, ...(publicBody !== undefined && { publicBody }), ...(publicFacets && { publicFacets }) }
}

/** A record that was derived from another one shares its content, so that the first comparisons decide. */
function isSameContent (a: RecordContent, b: RecordContent): boolean {
  if (a.body !== b.body || a.publicBody !== b.publicBody) return false
  return JSON.stringify(contentOf(a)) === JSON.stringify(contentOf(b))
}

/** Whether a change may have replaced the content. */
export function changesContent ({ before, after }: Pick<Change, 'before' | 'after'>): boolean {
  return !before || !after || !isSameContent(before, after)
}

/** @returns a value that matches `StoredChange` */
export function storedChange (change: Change): object {
  const { event, id, reason, before, after } = change
  const stored = { event, id, reason, before: before && headOf(before), after: after && headOf(after) }
  return before && changesContent(change) ? { ...stored, content: contentOf(before) } : stored
}

function matches<T extends TSchema> (schema: T, value: unknown): value is Static<T> {
  return checkerOf(schema).Check(value)
}

/** @throws for text that is not JSON or does not match the schema */
export function parseStored<T extends TSchema> (schema: T, text: string): Static<T> {
  const value: unknown = JSON.parse(text)
  if (!matches(schema, value)) throw new TypeError('breaks its schema')
  return value
}

/** A record and its time as stored, without shifts. */
export interface StoredAgent { readonly record: AgentRecord, readonly at: number }

/** The changes that are stored under one key. */
export interface ChangeBatch { readonly first: number, readonly count: number }

/** The content of a store. `meta` is null in a new store. */
export interface StoredState {
  readonly meta: Meta | null
  readonly agents: readonly StoredAgent[]
  /** The newest changes, oldest first, up to the revision in `meta`. */
  readonly changes: readonly Change[]
  readonly batches: readonly ChangeBatch[]
  readonly entries: ReadonlyArray<KeyValueEntry & { value: string }>
}

type NumberedChange = StoredChange & { readonly n: number }

/** Reads records and composes the state of the store. Records that do not belong together are errors. */
export class StateLoader {
  readonly #folder: string
  readonly #heads = new Map<string, StoredHead>()
  readonly #contents = new Map<string, RecordContent>()
  readonly #changes: NumberedChange[] = []
  readonly #batches: ChangeBatch[] = []
  readonly #entries: Array<KeyValueEntry & { value: string }> = []
  #meta: Meta | null = null

  /** @param folder the path for error messages */
  constructor (folder: string) {
    this.#folder = folder
  }

  /** Adds a record. Records are added in the order of their keys. @throws a refusal */
  add (key: string, value: string): void {
    const [kind, ...rest] = key.split('!')
    const id = rest.join('!')
    if (key === metaKey) this.#meta = this.#parse(Meta, key, value)
    else if (kind === 'agent') this.#heads.set(id, this.#parse(StoredHead, key, value))
    else if (kind === 'content') this.#contents.set(id, this.#parse(Content, key, value))
    else if (kind === 'changes') this.#addChanges(Number(id), this.#parse(StoredChanges, key, value))
    else if (kind === 'state') this.#addEntry(rest, this.#parse(StoredEntry, key, value))
    else throw this.#damaged(key, 'is not a record of a registry')
  }

  /** @throws a refusal */
  finish (): StoredState {
    const { revision = 0 } = this.#meta ?? {}
    if (!this.#meta && this.#heads.size + this.#contents.size + this.#changes.length > 0) throw this.#damaged(metaKey, 'is missing')
    return {
      meta: this.#meta,
      agents: this.#composeAgents(revision),
      changes: this.#composeChanges(revision),
      batches: this.#batches,
      entries: this.#entries
    }
  }

  #addChanges (first: number, changes: readonly StoredChange[]) {
    this.#batches.push({ first, count: changes.length })
    for (const [index, change] of changes.entries()) this.#changes.push({ ...change, n: first + index })
  }

  /** An entry of an unknown kind was written by a newer version. It stays in the database. */
  #addEntry ([kindName, ...key]: string[], entry: StoredEntry) {
    const kind = keyValueKinds.find(kind => kind === kindName)
    if (kind) this.#entries.push({ kind, key: key.join('!'), ...entry })
  }

  #composeAgents (revision: number): StoredAgent[] {
    for (const id of this.#contents.keys()) if (!this.#heads.has(id)) throw this.#damaged(`agent '${id}'`, 'is incomplete')
    return Array.from(this.#heads, ([id, { at, ...head }]) => {
      if (head.revision > revision) throw this.#damaged(`agent '${id}'`, 'is newer than the store')
      return { record: this.#compose(id, head, this.#contents.get(id)), at }
    })
  }

  #compose (id: string, head: RecordHead, content: RecordContent | undefined): AgentRecord {
    if (!content) throw this.#damaged(`agent '${id}'`, 'is incomplete')
    return { id, ...content, ...head }
  }

  /** From the newest to the oldest change, because the content before a change is stored with the change after it. */
  #composeChanges (revision: number): Change[] {
    const contents = new Map(this.#contents)
    let n = revision
    return this.#changes.toReversed().map(stored => {
      if (stored.n !== n--) throw this.#damaged(`change ${n + 1}`, 'is missing')
      return this.#composeChange(stored, contents)
    }).reverse()
  }

  /** @param contents the contents after the change, which become those before it */
  #composeChange ({ n, event, id, reason, before, after, content }: NumberedChange, contents: Map<string, RecordContent>): Change {
    const contentAfter = contents.get(id)
    const contentBefore = content ?? contentAfter
    if (before && contentBefore) contents.set(id, contentBefore)
    else contents.delete(id)
    return {
      n,
      event,
      id,
      before: before && this.#compose(id, before, contentBefore),
      after: after && this.#compose(id, after, contentAfter),
      reason
    }
  }

  #parse<T extends TSchema> (schema: T, key: string, value: string): Static<T> {
    try {
      return parseStored(schema, value)
    } catch (error) {
      throw this.#damaged(`'${key}'`, `cannot be read (${error instanceof Error ? error.message : String(error)})`)
    }
  }

  #damaged (subject: string, finding: string) {
    return damaged(this.#folder, `${subject} ${finding}`)
  }
}
