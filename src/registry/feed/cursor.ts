import type { FeedScope } from './change-log.js'
import { count } from '../query.js'
import type { Rendering } from '../render.js'
import type { Encoding } from './delta.js'
import { Place } from './position.js'
import type { FeedSource } from './source.js'

const maxPageBytes = 131_072
const maxPageAgents = 500

interface Snapshot { readonly renderings: readonly Rendering[], readonly revision: string, next: number }

/**
 * What a reader gets that follows the feed, whatever carries it there. It is asked for one thing after the other, and what
 * happens meanwhile goes into the next, so that a slow reader costs a number and not a queue. When it falls behind the
 * ring, or the numbers do not continue, it starts anew.
 */
export class Cursor<T> {
  readonly place: Place
  readonly encoding: Encoding<T>
  readonly #source: FeedSource
  #snapshot: Snapshot | null = null
  #isLost = false

  constructor ({ source, scope, encoding, position }: { source: FeedSource, scope: FeedScope, encoding: Encoding<T>, position: number }) {
    this.place = new Place({ source, scope, position })
    this.encoding = encoding
    this.#source = source
  }

  /** Begins a snapshot of this moment; changes after it follow its last page. */
  snapshot (): void {
    this.place.renew()
    this.#snapshot = { renderings: this.#source.snapshot(this.place.scope, this.place.key), revision: this.place.revision, next: 0 }
  }

  /** Tells the reader that what it knows cannot be continued, and starts anew. */
  restart (): void {
    this.#isLost = true
    this.snapshot()
  }

  /** Nothing is owed at this moment. */
  get isUpToDate (): boolean {
    return !this.#snapshot && !this.#isLost && this.place.isNewest
  }

  /** The next thing for the reader; null when nothing is owed. */
  next (): T | null {
    if (!this.#snapshot && !this.place.canContinue()) this.restart()
    if (this.#isLost) return this.#resync()
    return this.#snapshot ? this.#page(this.#snapshot) : this.place.take(this.encoding)
  }

  /** Says how far the reader is, with what it should have: only right when nothing is owed. */
  bookmark (): T {
    const { replica } = this.#source.registry
    const { revision, scope: { view, filter } } = this.place
    const isWhole = view === 'full' && Object.values(filter).every(value => value === undefined)
    return this.encoding.bookmark({ revision, count: count(replica, view, filter), ...(isWhole && { digest: replica.digest }) })
  }

  #resync (): T {
    this.#isLost = false
    return this.encoding.resync(this.place.revision)
  }

  #page (snapshot: Snapshot): T {
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
    return this.place.scope.view === 'full' ? rendering.full() : rendering.public()!
  }
}
