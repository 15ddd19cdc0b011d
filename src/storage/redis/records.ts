import type { MetricValues, StoredMetrics } from '../agent-metrics.js'
import type { AgentState } from '../../protocol/schemas/common.js'
import type { AgentRecord, Change, ChangeEvent, RecordContent } from '../agent-store.js'

/** What changes decide of a record, as scripts keep it. */
export interface Head {
  readonly ownerKey?: string
  readonly registeredAt: number
  readonly created: number
  readonly incarnation: number
  readonly revision: number
  readonly state: AgentState
  readonly held?: boolean
}

/** An entry of the stream of changes. */
export interface ChangeEntry {
  readonly n: number
  readonly epoch: string
  /** Tells it from another change that had this number before it was lost. */
  readonly mark: string
  /** Mark of the change before; empty when it begins an epoch. */
  readonly after: string
  /** The process that made the change. */
  readonly by: string
  readonly event: ChangeEvent
  readonly id: string
  readonly reason: string
  readonly was?: Head
  readonly wasSeen?: number
  readonly head?: Head
  readonly seen: number
  /** Packed, when it is another than before. */
  readonly content?: string
  /** Packed, what it was before; when it is another, or gone. */
  readonly formerly?: string
  readonly metrics?: string
}

/** The body stands behind the rest, as it is: it is much the largest part, and need not be escaped. */
export function packContent ({ body, type, capabilities, publicBody, publicFacets }: RecordContent): string {
  return `${JSON.stringify({ type, capabilities, publicBody, publicFacets })}\n${body}`
}

export function unpackContent (text: string): RecordContent {
  const end = text.indexOf('\n')
  return { ...JSON.parse(text.slice(0, end)) as Omit<RecordContent, 'body'>, body: text.slice(end + 1) }
}

function contentOf ({ body, type, capabilities, publicBody, publicFacets }: RecordContent): RecordContent {
  return { body, type, capabilities, ...(publicBody !== undefined && { publicBody }), ...(publicFacets && { publicFacets }) }
}

/** How metrics are written in the store, by which a report finds out whether it knows the newest. */
const texts = new WeakMap<StoredMetrics, string>()

export function readMetrics (text: string): StoredMetrics {
  const end = text.indexOf('\n')
  const metrics = { ...JSON.parse(text.slice(end + 1)) as Required<MetricValues>, lastActive: Number(text.slice(0, end)) }
  texts.set(metrics, text)
  return metrics
}

/** The values as they are stored, without the time, which the store puts before them. */
export function writeMetrics ({ lastActive, ...values }: StoredMetrics): string {
  return JSON.stringify(values)
}

export function metricsText (metrics: StoredMetrics | null | undefined): string {
  return metrics ? texts.get(metrics)! : ''
}

export interface Parts { content: RecordContent, head: Head, seen: number, metrics: StoredMetrics | null }

export function compose (id: string, { content, head, seen, metrics }: Parts): AgentRecord {
  const { registeredAt, created, incarnation, revision, state, held = false, ownerKey = null } = head
  return { id, ...contentOf(content), ownerKey, registeredAt, created, incarnation, revision, state, lastSeen: seen, held, metrics }
}

/**
 * The change that an entry tells of.
 * @param known the record just before it, as far as it is known
 * @returns undefined when the content is not known
 */
export function changeOf (entry: ChangeEntry, known: AgentRecord | undefined): Change | undefined {
  const { n, event, id, reason, was, wasSeen = 0, head, seen } = entry
  const former = entry.formerly === undefined ? known : unpackContent(entry.formerly)
  const content = entry.content === undefined ? former : unpackContent(entry.content)
  if ((was && !former) || (head && !content)) return undefined
  const metrics = entry.metrics === undefined ? null : metricsText(known?.metrics) === entry.metrics ? known!.metrics : readMetrics(entry.metrics)
  const before = was ? compose(id, { content: former!, head: was, seen: wasSeen, metrics }) : null
  const after = head ? compose(id, { content: content!, head, seen, metrics }) : null
  return { n, event, id, before, after, reason }
}

/** The record that an entry with its content made, or took away. */
export function resultOf ({ id, content, formerly, head, was, seen, metrics }: ChangeEntry): AgentRecord {
  return compose(id, { content: unpackContent((content ?? formerly)!), head: (head ?? was)!, seen, metrics: metrics === undefined ? null : readMetrics(metrics) })
}

/** An entry as a read of the stream returns it. */
export function readEntry ([position, fields]: [string, string[]]): ChangeEntry {
  const texts: Record<string, string> = {}
  for (let index = 0; index < fields.length; index += 2) texts[fields[index]!] = fields[index + 1]!
  const { change, ...rest } = texts
  return { ...JSON.parse(change!) as ChangeEntry, ...rest, n: Number.parseInt(position, 10) }
}

/** What a script says that it has told. */
export type Told = [n: string, change: string, metrics: string | null, formerly: string | null]

export function readTold ([n, change, metrics, formerly]: Told, content?: string): ChangeEntry {
  const entry = { ...JSON.parse(change) as ChangeEntry, n: Number(n) }
  return { ...entry, ...(metrics !== null && { metrics }), ...(formerly !== null && { formerly }), ...(content !== undefined && { content }) }
}
