import { Feed, type FeedScope } from './change-log.js'
import { PageCache } from '../page-cache.js'
import { select } from '../query.js'
import { revisionText, type Rendering } from '../render.js'
import type { Registry } from '../registry.js'
import type { Encoding } from './delta.js'

/** Snapshots are large; who asks for one often asks for the same. */
const maxSharedSnapshots = 8

interface SharedBatch { readonly told: unknown, readonly to: number }
/** Which batch was asked for last: all readers who are told of a change ask for the same, one after the other. */
interface Asked { readonly batch: SharedBatch, readonly version: number, readonly position: number, readonly limit: number, readonly name: string, readonly key: string }

/** What the readers of one registry work with and share. */
export class FeedSource {
  readonly registry: Registry
  readonly feed: Feed
  readonly #batches: PageCache<SharedBatch>
  readonly #snapshots: PageCache<readonly Rendering[]>
  #asked: Asked | undefined

  constructor (registry: Registry) {
    this.registry = registry
    this.feed = new Feed(registry.replica)
    this.#batches = new PageCache(registry.replica)
    this.#snapshots = new PageCache(registry.replica, maxSharedSnapshots)
  }

  /** What follows `position` for readers with this scope; `told` is null when there is nothing for them in it. */
  batch<T> (scope: FeedScope, key: string, encoding: Pick<Encoding<T>, 'name' | 'changes'>, position: number, limit = Feed.maxChanges): { told: T | null, to: number } {
    const { version } = this.registry.replica
    const asked = this.#asked
    const isSame = asked !== undefined && asked.position === position && asked.version === version && asked.limit === limit && asked.name === encoding.name && asked.key === key
    const batch = isSame ? asked.batch : this.#batch(scope, key, encoding, position, limit)
    if (!isSame) this.#asked = { batch, version, position, limit, name: encoding.name, key }
    // Nobody else makes something under the name of this encoding.
    return batch as { told: T | null, to: number }
  }

  #batch<T> (scope: FeedScope, key: string, { name, changes: encode }: Pick<Encoding<T>, 'name' | 'changes'>, position: number, limit: number): SharedBatch {
    return this.#batches.get(`${position} ${limit} ${name} ${key}`, () => {
      const { replica, ring } = this.registry
      const { changes, to } = this.feed.batch(scope, position, ring.after(position, Feed.maxChanges), limit)
      return { told: changes.length > 0 ? encode(changes, revisionText(replica.epoch, to)) : null, to }
    })
  }

  /** All agents that readers with this scope see now. */
  snapshot ({ view, filter }: FeedScope, key: string): readonly Rendering[] {
    return this.#snapshots.get(key, () => Array.from(select(this.registry.replica, view, filter), entry => entry.rendering))
  }
}
