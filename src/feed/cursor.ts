import { Feed, scopeKey, type FeedScope } from '../registry/feed.js'
import { count, select } from '../registry/query.js'
import { PageCache } from '../registry/page-cache.js'
import { revisionText, type Rendering } from '../registry/render.js'
import type { Registry } from '../registry/registry.js'
import type { Encoding } from './encoding.js'

const maxPageBytes = 131_072
const maxPageAgents = 500
/** Snapshots are large; who asks for one often asks for the same. */
const maxSharedSnapshots = 8

interface SharedBatch { readonly text: string | null, readonly to: number }
interface Snapshot { readonly renderings: readonly Rendering[], readonly revision: string, next: number }

/** What the readers of one registry work with and share. */
export class FeedSource {
  readonly registry: Registry
  readonly feed: Feed
  readonly #batches: PageCache<SharedBatch>
  readonly #snapshots: PageCache<readonly Rendering[]>

  constructor (registry: Registry) {
    this.registry = registry
    this.feed = new Feed(registry.replica)
    this.#batches = new PageCache(registry.replica)
    this.#snapshots = new PageCache(registry.replica, maxSharedSnapshots)
  }

  /** What follows `position` for readers with this scope; null when there is nothing for them in it. */
  batch (scope: FeedScope, key: string, encoding: Encoding, position: number): SharedBatch {
    return this.#batches.get(`${position} ${encoding.name} ${key}`, () => {
      const { replica, ring } = this.registry
      const { changes, to } = this.feed.batch(scope, position, ring.after(position, Feed.maxChanges))
      return { text: changes.length > 0 ? encoding.changes(changes, n => revisionText(replica.epoch, n)) : null, to }
    })
  }

  /** All agents that readers with this scope see now. */
  snapshot ({ view, filter }: FeedScope, key: string): readonly Rendering[] {
    return this.#snapshots.get(key, () => Array.from(select(this.registry.replica, view, filter), entry => entry.rendering))
  }
}

/**
 * A reader's place in the feed, whatever carries it there. It is asked for one text after the other, and what happens
 * meanwhile goes into the next, so that a slow reader costs a number and not a queue. When it falls behind the ring, or
 * the numbers do not continue, it starts anew.
 */
export class Cursor {
  readonly scope: FeedScope
  readonly key: string
  readonly encoding: Encoding
  readonly #source: FeedSource
  #position: number
  #epoch: string
  #snapshot: Snapshot | null = null
  #isLost = false

  constructor ({ source, scope, encoding, position }: { source: FeedSource, scope: FeedScope, encoding: Encoding, position: number }) {
    this.#source = source
    this.scope = scope
    this.key = scopeKey(scope)
    this.encoding = encoding
    this.#position = position
    this.#epoch = source.registry.replica.epoch
  }

  /** Number of the last change that was taken, or that did not concern this reader. */
  get position (): number { return this.#position }

  /** The reader was looked after by others, and nothing up to `position` was for it. */
  moveTo (position: number): void {
    this.#position = position
  }

  /** Begins a snapshot of this moment; changes after it follow its last page. */
  snapshot (): void {
    const { registry } = this.#source
    this.#snapshot = { renderings: this.#source.snapshot(this.scope, this.key), revision: registry.revision, next: 0 }
    this.#position = registry.replica.revision
    this.#epoch = registry.replica.epoch
  }

  /** Tells the reader that what it knows cannot be continued, and starts anew. */
  restart (): void {
    this.#isLost = true
    this.snapshot()
  }

  /** The next text for the reader; null when nothing is owed. */
  next (): string | null {
    if (!this.#snapshot && !this.#canContinue()) this.restart()
    if (this.#isLost) return this.#resync()
    return this.#snapshot ? this.#page(this.#snapshot) : this.#changes()
  }

  /** Says how far the reader is, with what it should have: only right when nothing is owed. */
  bookmark (): string {
    const { replica } = this.#source.registry
    const { view, filter } = this.scope
    const isWhole = view === 'full' && Object.values(filter).every(value => value === undefined)
    return this.encoding.bookmark({
      revision: revisionText(replica.epoch, this.#position),
      count: count(replica, view, filter),
      ...(isWhole && { digest: replica.digest })
    })
  }

  /** Numbers of another epoch say nothing, and of what the ring has forgotten nobody knows. */
  #canContinue () {
    const { replica, ring } = this.#source.registry
    return this.#epoch === replica.epoch && ring.has(this.#position)
  }

  #resync (): string {
    this.#isLost = false
    return this.encoding.resync(this.#snapshot!.revision)
  }

  #changes (): string | null {
    while (this.#position < this.#source.registry.ring.newest) {
      const { text, to } = this.#source.batch(this.scope, this.key, this.encoding, this.#position)
      this.#position = to
      if (text !== null) return text
    }
    return null
  }

  #page (snapshot: Snapshot): string {
    const { renderings, revision } = snapshot
    const agents: string[] = []
    for (let bytes = 0; snapshot.next < renderings.length && agents.length < maxPageAgents && bytes < maxPageBytes; snapshot.next++) {
      const text = this.#agent(renderings[snapshot.next]!)
      bytes += Buffer.byteLength(text)
      agents.push(text)
    }
    const last = snapshot.next === renderings.length
    if (last) this.#snapshot = null
    return this.encoding.page({ revision, agents, last })
  }

  #agent (rendering: Rendering): string {
    return this.scope.view === 'full' ? rendering.full() : rendering.public()!
  }
}
