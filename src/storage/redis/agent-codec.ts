import type { AgentState } from '../../protocol/schemas/common.js'
import type { MetricValues, StoredMetrics } from '../agent-metrics.js'
import type { AgentRecord, Change, ChangeEvent, RecordContent } from '../agent-store.js'

/** The members of a record that changes determine, as scripts store them. */
export interface RecordHead {
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
  /** Distinguishes this change from another one that had its number before it was lost. */
  readonly mark: string
  /** The mark of the previous change; empty for the first change of an epoch. */
  readonly after: string
  /** The process that made the change. */
  readonly by: string
  readonly event: ChangeEvent
  readonly id: string
  readonly reason: string
  readonly was?: RecordHead
  readonly wasSeen?: number
  readonly head?: RecordHead
  readonly seen: number
  /** The packed content, if it changed. */
  readonly content?: string
  /** The packed content before the change, if it changed or was removed. */
  readonly formerly?: string
  readonly metrics?: string
}

/** The body follows the other members as it is: it is by far the largest part and need not be escaped. */
export function packContent ({ body, type, capabilities, publicBody, publicFacets }: RecordContent): string {
  return `${JSON.stringify({ type, capabilities, publicBody, publicFacets })}\n${body}`
}

export function unpackContent (text: string): RecordContent {
  const end = text.indexOf('\n')
  const members: Omit<RecordContent, 'body'> = JSON.parse(text.slice(0, end))
  return { ...members, body: text.slice(end + 1) }
}

function contentOf ({ body, type, capabilities, publicBody, publicFacets }: RecordContent): RecordContent {
  return { body, type, capabilities, ...(publicBody !== undefined && { publicBody }), ...(publicFacets && { publicFacets }) }
}

/** The stored text of metrics, by which a report checks that it is based on the newest ones. */
const metricsTexts = new WeakMap<StoredMetrics, string>()

export function readMetrics (text: string): StoredMetrics {
  const end = text.indexOf('\n')
  const values: Required<MetricValues> = JSON.parse(text.slice(end + 1))
  const metrics = { ...values, lastActive: Number(text.slice(0, end)) }
  metricsTexts.set(metrics, text)
  return metrics
}

/** The stored text of metrics without the time, which the script adds. */
export function writeMetrics ({ lastActive, ...values }: StoredMetrics): string {
  return JSON.stringify(values)
}

export function metricsText (metrics: StoredMetrics | null | undefined): string {
  return (metrics && metricsTexts.get(metrics)) ?? ''
}

interface RecordParts { content: RecordContent, head: RecordHead, seen: number, metrics: StoredMetrics | null }

export function composeRecord (id: string, { content, head, seen, metrics }: RecordParts): AgentRecord {
  const { registeredAt, created, incarnation, revision, state, held = false, ownerKey = null } = head
  return { id, ...contentOf(content), ownerKey, registeredAt, created, incarnation, revision, state, lastSeen: seen, held, metrics }
}

function metricsOf ({ metrics }: ChangeEntry, known: AgentRecord | undefined): StoredMetrics | null {
  if (metrics === undefined) return null
  return known && metricsText(known.metrics) === metrics ? known.metrics : readMetrics(metrics)
}

/**
 * The change that an entry describes.
 * @param known the record before the change, if it is known
 * @returns undefined when the content is not known
 */
export function changeOf (entry: ChangeEntry, known: AgentRecord | undefined): Change | undefined {
  const { n, event, id, reason, was, wasSeen = 0, head, seen } = entry
  const former = entry.formerly === undefined ? known : unpackContent(entry.formerly)
  const content = entry.content === undefined ? former : unpackContent(entry.content)
  if ((was && !former) || (head && !content)) return undefined
  const metrics = metricsOf(entry, known)
  const before = was && former ? composeRecord(id, { content: former, head: was, seen: wasSeen, metrics }) : null
  const after = head && content ? composeRecord(id, { content, head, seen, metrics }) : null
  return { n, event, id, before, after, reason }
}

/** The record that an entry created or removed. @throws when the entry does not contain the content */
export function resultOf ({ id, content, formerly, head, was, seen, metrics }: ChangeEntry): AgentRecord {
  const text = content ?? formerly
  const result = head ?? was
  if (text === undefined || !result) throw new Error(`The change of agent ${id} does not contain its content`)
  const parts = { content: unpackContent(text), head: result, seen, metrics: metrics === undefined ? null : readMetrics(metrics) }
  return composeRecord(id, parts)
}

/** An entry as a read of the stream returns it: its id, and fields and values in turn. */
export type StreamEntry = [id: string, fields: string[]]

/** The number of a change, which is the first part of its stream id. */
export const numberOf = ([id]: StreamEntry): number => Number.parseInt(id, 10)

export function readEntry (entry: StreamEntry): ChangeEntry {
  const [, fields] = entry
  const values: Record<string, string> = {}
  for (let index = 0; index < fields.length; index += 2) values[fields[index] ?? ''] = fields[index + 1] ?? ''
  const { change = '{}', ...rest } = values
  const parsed: ChangeEntry = JSON.parse(change)
  return { ...parsed, ...rest, n: numberOf(entry) }
}

/** A change as the script that made it returns it. */
export type PublishedChange = [n: string, change: string, metrics: string | null, formerly: string | null]

/** @param content the content that the caller passed to the script */
export function readPublished ([n, change, metrics, formerly]: PublishedChange, content?: string): ChangeEntry {
  const parsed: ChangeEntry = JSON.parse(change)
  return {
    ...parsed,
    n: Number(n),
    ...(metrics !== null && { metrics }),
    ...(formerly !== null && { formerly }),
    ...(content !== undefined && { content })
  }
}
