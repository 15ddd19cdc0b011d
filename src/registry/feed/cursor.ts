import { count } from '../query.js'
import { revisionText, type Rendering } from '../render.js'
import type { Feed } from './change-log.js'
import { scopeKey, type FeedEncoding, type FeedScope } from './delta.js'

interface FeedPositionOptions {
  feed: Feed
  scope: FeedScope
  /** Number of the last change that the subscriber has. */
  position: number
  /** Most changes that one `take` returns. */
  limit?: number
}

/** The position of a subscriber in one scope of the feed. */
export class FeedPosition {
  readonly scope: FeedScope
  /** Equal for equal scopes. */
  readonly key: string
  readonly #feed: Feed
  readonly #limit: number | undefined
  #position: number
  #epoch: string

  constructor ({ feed, scope, position, limit }: FeedPositionOptions) {
    this.scope = scope
    this.key = scopeKey(scope)
    this.#feed = feed
    this.#limit = limit
    this.#position = position
    this.#epoch = feed.replica.epoch
  }

  /** The revision of the last change that was taken or skipped. */
  get revision (): string {
    return revisionText(this.#epoch, this.#position)
  }

  /** Whether the position is at the newest change. */
  get isNewest (): boolean {
    const { replica, changeLog } = this.#feed
    return this.#position === changeLog.newest && this.#epoch === replica.epoch
  }

  /** Skips changes up to number `position`, none of which the scope shows. */
  skipTo (position: number): void {
    this.#position = position
  }

  /** Moves to the newest change of the current epoch. */
  skipToNewest (): void {
    const { replica } = this.#feed
    this.#position = replica.revision
    this.#epoch = replica.epoch
  }

  /** Whether the change log continues from here: the epoch is current and no change in between was trimmed. */
  canContinue (): boolean {
    const { replica, changeLog } = this.#feed
    return this.#epoch === replica.epoch && changeLog.has(this.#position)
  }

  /** Moves past the next changes that the scope shows. @returns the encoded changes, or null if there are none */
  take<T> (encoding: Pick<FeedEncoding<T>, 'name' | 'changes'>): T | null {
    while (this.#position < this.#feed.changeLog.newest) {
      const { output, to } = this.#feed.read(this.scope, this.key, encoding, this.#position, this.#limit)
      this.#position = to
      if (output !== null) return output
    }
    return null
  }
}

const maxPageBytes = 131_072
const maxPageAgents = 500

interface Snapshot { readonly renderings: readonly Rendering[], readonly revision: string, next: number }

/**
 * The output for one subscriber that follows the feed, for any transport. It holds a position instead of a queue, however
 * slow the subscriber is: the transport requests one output at a time, and changes that happen meanwhile are part of the
 * next one. It restarts with a snapshot when the change log does not continue from its position.
 */
export class Cursor<T> {
  readonly position: FeedPosition
  readonly encoding: FeedEncoding<T>
  readonly #feed: Feed
  #snapshot: Snapshot | null = null
  #needsResync = false

  constructor ({ feed, scope, encoding, position }: { feed: Feed, scope: FeedScope, encoding: FeedEncoding<T>, position: number }) {
    this.position = new FeedPosition({ feed, scope, position })
    this.encoding = encoding
    this.#feed = feed
  }

  /** Starts a snapshot of the current state. Changes after it follow its last page. */
  snapshot (): void {
    this.position.skipToNewest()
    this.#snapshot = { renderings: this.#feed.snapshot(this.position.scope, this.position.key), revision: this.position.revision, next: 0 }
  }

  /** Starts again with a resync message and a snapshot. */
  restart (): void {
    this.#needsResync = true
    this.snapshot()
  }

  /** Whether `next` has no output at this moment. */
  get isUpToDate (): boolean {
    return !this.#snapshot && !this.#needsResync && this.position.isNewest
  }

  /** The next output; null if there is none. */
  next (): T | null {
    if (!this.#snapshot && !this.position.canContinue()) this.restart()
    if (this.#needsResync) return this.#resync()
    return this.#snapshot ? this.#page(this.#snapshot) : this.position.take(this.encoding)
  }

  /** A bookmark of the current position. Call it only when the cursor is up to date. */
  bookmark (): T {
    const { replica } = this.#feed
    const { revision, scope: { view, filter } } = this.position
    const isWhole = view === 'full' && Object.values(filter).every(value => value === undefined)
    return this.encoding.bookmark({ revision, count: count(replica, view, filter), ...(isWhole && { digest: replica.digest }) })
  }

  #resync (): T {
    this.#needsResync = false
    return this.encoding.resync(this.position.revision)
  }

  #page (snapshot: Snapshot): T {
    const { renderings, revision } = snapshot
    const { view } = this.position.scope
    const agents: string[] = []
    let bytes = 0
    for (const rendering of renderings.slice(snapshot.next, snapshot.next + maxPageAgents)) {
      if (bytes >= maxPageBytes) break
      const json = rendering.of(view)
      bytes += Buffer.byteLength(json)
      agents.push(json)
    }
    snapshot.next += agents.length
    const last = snapshot.next === renderings.length
    if (last) this.#snapshot = null
    return this.encoding.page({ revision, agents, last })
  }
}
