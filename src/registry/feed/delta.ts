import type { ToldChange } from './change-log.js'

/** A page of the agents as they were at `revision`. `agents` are JSON texts. */
export interface SnapshotPage { readonly revision: string, readonly agents: readonly string[], readonly last: boolean }

/** How far a reader is, and how many agents it should know; the digest only for those who see everything. */
export interface Bookmark { readonly revision: string, readonly count: number, readonly digest?: string }

/** What a reader is owed, as what it gets. Readers with the same encoding share what is made for one of them. */
export interface Encoding<T> {
  readonly name: string
  /** @param revision what these changes bring the reader to */
  changes (changes: readonly ToldChange[], revision: string): T
  page (page: SnapshotPage): T
  /** What the reader knows cannot be continued: pages of a snapshot follow. */
  resync (revision: string): T
  bookmark (bookmark: Bookmark): T
}

export const listOf = (changes: readonly ToldChange[]) => `[${changes.map(({ json }) => json).join()}]`
export const pageOf = ({ revision, agents, last }: SnapshotPage) => `"revision":"${revision}","agents":[${agents.join()}],"last":${last}`

/** Answers to one request for changes, which takes no snapshot. */
export const answers: Pick<Encoding<string>, 'name' | 'changes' | 'resync'> = {
  name: 'answers',
  changes: (changes, revision) => `{"changes":${listOf(changes)},"revision":"${revision}"}`,
  resync: revision => `{"changes":[],"revision":"${revision}","resync":true}`
}

/** A position that nothing continues from: whoever comes back with it starts anew. */
const incomplete = 'incomplete'

const block = (event: string, id: string, data: string) => `id: ${id}\nevent: ${event}\ndata: ${data}\n\n`

/** Server-Sent Events (HTML Living Standard §9.2): the id of each is the revision to continue from after it. */
export const events: Encoding<Buffer> = {
  name: 'events',
  changes: changes => Buffer.from(changes.map(({ revision, op, json }) => block(op, revision, json)).join('')),
  page: page => Buffer.from(block('snapshot', page.last ? page.revision : incomplete, `{${pageOf(page)}}`)),
  resync: revision => Buffer.from(block('resync', incomplete, `{"revision":"${revision}"}`)),
  bookmark: bookmark => Buffer.from(block('bookmark', bookmark.revision, JSON.stringify(bookmark)))
}

/** What comes before the first event: when to come back after a cut, and from where. */
export const opening = (retryMs: number, revision: string | null) => Buffer.from(`retry: ${retryMs}\nid: ${revision ?? incomplete}\n\n`)

/** A line that nobody sees, which shows that the connection is there. */
export const keepAlive = Buffer.from(':\n\n')

/** The stream will end; it can be continued elsewhere, after `retryAfterMs`. */
export const goingAway = (retryAfterMs: number) => Buffer.from(`retry: ${retryAfterMs}\nevent: going_away\ndata: {"retryAfterMs":${retryAfterMs}}\n\n`)

/** The stream ends because the right to read it has. */
export const ended = (reason: string) => Buffer.from(`event: end\ndata: ${JSON.stringify({ reason })}\n\n`)
