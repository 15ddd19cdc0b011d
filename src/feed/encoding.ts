import type { ToldChange } from '../registry/feed.js'

/** A page of the agents as they were at `revision`. `agents` are JSON texts. */
export interface SnapshotPage { readonly revision: string, readonly agents: readonly string[], readonly last: boolean }

/** How far a reader is, and how many agents it should know; the digest only for those who see everything. */
export interface Bookmark { readonly revision: string, readonly count: number, readonly digest?: string }

/** What a reader is owed, as the text that it gets. Readers with the same encoding share what is made for one of them. */
export interface Encoding {
  readonly name: string
  changes (changes: readonly ToldChange[], revisionOf: (n: number) => string): string
  page (page: SnapshotPage): string
  /** What the reader knows cannot be continued: pages of a snapshot follow. */
  resync (revision: string): string
  bookmark (bookmark: Bookmark): string
}

/** Frames of the WebSocket tiers. */
export const frames: Encoding = {
  name: 'frames',
  changes: changes => `{"type":"agents_delta","changes":[${changes.map(({ json }) => json).join()}]}`,
  page: ({ revision, agents, last }) => `{"type":"agents_snapshot","revision":"${revision}","agents":[${agents.join()}],"last":${last}}`,
  resync: revision => `{"type":"resync","revision":"${revision}"}`,
  bookmark: bookmark => JSON.stringify({ type: 'bookmark', ...bookmark })
}
