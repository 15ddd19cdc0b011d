import { Type, type Static, type TSchema } from '@sinclair/typebox'
import { State } from '../../protocol/schemas/common.js'
import { checkerOf } from '../../protocol/validation.js'
import type { AgentRecord, Change, RecordContent } from '../agent-store.js'

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

/** A record without what its owner decides, which is stored apart: it changes seldom, and is large. */
export const Head = Type.Object({
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
export type Head = Static<typeof Head>

/** `at` is the end of the lease or retention or the beginning of the hold, without shifts. */
export const StoredHead = Type.Composite([Head, Type.Object({ at: Time })])
export type StoredHead = Static<typeof StoredHead>

export const Content = Type.Object({
  body: Type.String(),
  type: Type.String(),
  capabilities: Type.Array(Type.String()),
  publicBody: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  publicFacets: Type.Optional(Facets)
})

/** `content` is that before the change, unless it was the same after it. */
export const StoredChange = Type.Object({
  event: Type.Union(['registered', 'updated', 'alive', 'dead', 'unregistered', 'state'].map(name => Type.Literal(name as Change['event']))),
  id: Type.String(),
  reason: Type.String(),
  before: Type.Union([Head, Type.Null()]),
  after: Type.Union([Head, Type.Null()]),
  content: Type.Optional(Content)
})
export type StoredChange = Static<typeof StoredChange>

/** The changes of one batch, without a gap; the first has the number that is in their key. */
export const StoredChanges = Type.Array(StoredChange, { minItems: 1 })

export const Meta = Type.Object({
  epoch: Type.String({ minLength: 1 }),
  revision: Count,
  incarnation: Type.Number(),
  /** Until when signs of life are written, by the clock of that process. */
  alive: Time,
  /** How far all leases and holds, and all graves, were moved since their times were written. */
  leaseShift: Type.Number(),
  graveShift: Type.Number()
})
export type Meta = Static<typeof Meta>

export const StoredEntry = Type.Object({ value: Type.String(), until: Time })
export type StoredEntry = Static<typeof StoredEntry>

export const metaKey = 'meta'
export const headKey = (id: string) => `agent!${id}`
export const contentKey = (id: string) => `content!${id}`
/** @param first number of the first change of a batch */
export const changesKey = (first: number) => `changes!${String(first).padStart(16, '0')}`
export const entryKey = (kind: string, key: string) => `state!${kind}!${key}`

export function headOf (record: AgentRecord): Head {
  const { ownerKey, registeredAt, created, incarnation, revision, state, lastSeen, held, metrics } = record
  return { ownerKey, registeredAt, created, incarnation, revision, state, lastSeen, held, metrics }
}

export function contentOf ({ body, type, capabilities, publicBody, publicFacets }: RecordContent): RecordContent {
  return { body, type, capabilities, ...(publicBody !== undefined && { publicBody }), ...(publicFacets && { publicFacets }) }
}

/** Of a record that was made of another one, its members are the very same. */
export function isSameContent (a: RecordContent, b: RecordContent): boolean {
  return a === b || (a.body === b.body && a.publicBody === b.publicBody && JSON.stringify(contentOf(a)) === JSON.stringify(contentOf(b)))
}

/** Whether a change may have changed what its owner decides. */
export const changesContent = ({ before, after }: Pick<Change, 'before' | 'after'>): boolean => !before || !after || !isSameContent(before, after)

/** A change as `StoredChange` has it. */
export function storedChange (change: Change): object {
  const { event, id, reason, before, after } = change
  const stored = { event, id, reason, before: before && headOf(before), after: after && headOf(after) }
  return before && changesContent(change) ? { ...stored, content: contentOf(before) } : stored
}

/** @throws for what is no JSON or breaks the schema */
export function parseStored<T extends TSchema> (schema: T, text: string): Static<T> {
  const value: unknown = JSON.parse(text)
  if (!checkerOf(schema).Check(value)) throw new TypeError('breaks its schema')
  return value
}
