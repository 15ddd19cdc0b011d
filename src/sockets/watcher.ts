import { Feed, scopeKey, type FeedScope } from '../registry/feed.js'
import { count, select } from '../registry/query.js'
import { revisionText, type Rendering } from '../registry/render.js'
import type { Registry } from '../registry/registry.js'
import type { Connection } from './connection.js'

const maxPageBytes = 131_072
const maxPageAgents = 500

/** Texts that watchers with the same scope at the same position share within one flush. */
export type SharedBatches = Map<string, { text: string | null, to: number }>

interface Snapshot { readonly renderings: Rendering[], readonly revision: string, next: number }

/**
 * A connection's place in the feed. It pulls: one frame is on its way at a time, and what happens meanwhile goes into
 * the next, so that a slow reader costs a number and not a queue. When it falls behind the ring it starts anew.
 */
export class Watcher {
  readonly connection: Connection
  readonly #scope: FeedScope
  readonly #key: string
  readonly #registry: Registry
  readonly #feed: Feed
  #position: number
  #epoch: string
  #snapshot: Snapshot | null = null
  #sending = false
  bookmarkedAt = 0

  constructor ({ connection, scope, registry, feed, position }: { connection: Connection, scope: FeedScope, registry: Registry, feed: Feed, position: number }) {
    this.connection = connection
    this.#scope = scope
    this.#key = scopeKey(scope)
    this.#registry = registry
    this.#feed = feed
    this.#position = position
    this.#epoch = registry.replica.epoch
  }

  /** Begins a snapshot of this moment; changes after it follow its last page. */
  snapshot (): void {
    const renderings = Array.from(select(this.#registry.replica, this.#scope.view, this.#scope.filter), entry => entry.rendering)
    this.#snapshot = { renderings, revision: this.#registry.revision, next: 0 }
    this.#position = this.#registry.replica.revision
    this.#epoch = this.#registry.replica.epoch
  }

  /** Tells the client that what it knows cannot be continued, and starts anew. */
  resync (): void {
    this.connection.sendFrame({ type: 'resync', revision: this.#registry.revision })
    this.snapshot()
  }

  /** Sends what is owed, if nothing is on its way. */
  pump (shared: SharedBatches = new Map()): void {
    if (this.#sending || !this.#isCurrent()) return
    if (!this.#snapshot && !this.#canContinue()) this.resync()
    if (this.#snapshot) return this.#sendPage(this.#snapshot)
    while (this.#position < this.#registry.ring.newest) {
      const { text, to } = this.#batch(shared)
      this.#position = to
      if (text !== null) return this.#send(text)
    }
  }

  /** Says how far the watcher is, with what it should have: only when nothing is owed. */
  bookmark (): boolean {
    if (this.#sending || this.#snapshot || !this.#canContinue() || this.#position !== this.#registry.ring.newest) return false
    const { view, filter } = this.#scope
    const whole = view === 'full' && Object.keys(filter).length === 0
    this.connection.sendFrame({
      type: 'bookmark',
      revision: revisionText(this.#registry.replica.epoch, this.#position),
      count: count(this.#registry.replica, view, filter),
      ...(whole && { digest: this.#registry.replica.digest })
    })
    return true
  }

  /** Numbers of another epoch say nothing, and of what the ring has forgotten nobody knows. */
  #canContinue () {
    return this.#epoch === this.#registry.replica.epoch && this.#registry.ring.has(this.#position)
  }

  #isCurrent () {
    return this.connection.watcher === this && this.connection.isOpen
  }

  #batch (shared: SharedBatches) {
    const key = `${this.#position} ${this.#key}`
    const known = shared.get(key)
    if (known) return known
    const { changes, to } = this.#feed.batch(this.#scope, this.#position, this.#registry.ring.after(this.#position, Feed.maxChanges))
    const batch = { text: changes.length > 0 ? `{"type":"agents_delta","changes":[${changes.join()}]}` : null, to }
    shared.set(key, batch)
    return batch
  }

  #sendPage (snapshot: Snapshot) {
    const agents: string[] = []
    for (let bytes = 0; snapshot.next < snapshot.renderings.length && agents.length < maxPageAgents && bytes < maxPageBytes; snapshot.next++) {
      const text = this.#agent(snapshot.renderings[snapshot.next]!)
      bytes += Buffer.byteLength(text)
      agents.push(text)
    }
    const last = snapshot.next === snapshot.renderings.length
    if (last) this.#snapshot = null
    this.#send(`{"type":"agents_snapshot","revision":"${snapshot.revision}","agents":[${agents.join()}],"last":${last}}`)
  }

  #agent (rendering: Rendering): string {
    return this.#scope.view === 'full' ? rendering.full() : rendering.public()!
  }

  #send (text: string) {
    this.#sending = true
    this.connection.send(text, () => {
      this.#sending = false
      this.pump()
    })
  }
}
