import type { Change } from '../../storage/agent-store.js'
import { select, VersionedCache } from '../query.js'
import { revisionText, type Rendering } from '../render.js'
import type { Replica } from '../replica.js'
import { DeltaRenderer, type FeedEncoding, type FeedScope } from './delta.js'

/** The newest changes, from which subscribers continue after a disconnect. */
export class ChangeLog {
  readonly #size: number
  #changes: Change[] = []
  #newest = 0

  /** @param size how many changes are kept at least, once there were as many */
  constructor (size: number) {
    this.#size = size
  }

  /** Number of the newest change. */
  get newest () { return this.#newest }

  /** Replaces all changes. @param changes the newest changes up to number `newest`, oldest first, without a gap */
  reset (newest: number, changes: readonly Change[] = []): void {
    this.#newest = newest
    this.#changes = changes.slice(-this.#size)
  }

  push (change: Change): void {
    this.#changes.push(change)
    this.#newest = change.n
    // Trimming only at twice the size moves each change once at most.
    if (this.#changes.length >= 2 * this.#size) this.#changes = this.#changes.slice(-this.#size)
  }

  /** Whether the log holds every change after number `n`. */
  has (n: number): boolean {
    return n <= this.#newest && n >= this.#newest - Math.min(this.#changes.length, this.#size)
  }

  /** The changes after number `n`, oldest first, at most `limit`. @param n a number that `has` accepts */
  after (n: number, limit: number): Change[] {
    const start = this.#changes.length - (this.#newest - n)
    return this.#changes.slice(start, start + limit)
  }
}

/** Subscribers who need a snapshot often need the same one; snapshots are large. */
const maxSharedSnapshots = 8

interface EncodedBatch<T> { readonly output: T | null, readonly to: number }

/** The last batch that was read: all subscribers that a change wakes read the same batch one after the other. */
interface LastRead {
  readonly batch: EncodedBatch<unknown>
  readonly version: number
  readonly from: number
  readonly limit: number
  readonly encoding: string
  readonly key: string
}

/** The part of an encoding that batches of changes need. */
type ChangeEncoding<T> = Pick<FeedEncoding<T>, 'name' | 'changes'>

/** The state that all subscribers of one registry share: replica, change log, rendered deltas, encoded batches and snapshots. */
export class Feed {
  readonly replica: Replica
  readonly changeLog: ChangeLog
  readonly deltas: DeltaRenderer
  readonly #batches: VersionedCache<EncodedBatch<unknown>>
  readonly #snapshots: VersionedCache<readonly Rendering[]>
  #last: LastRead | undefined

  constructor ({ replica, changeLog }: { replica: Replica, changeLog: ChangeLog }) {
    this.replica = replica
    this.changeLog = changeLog
    this.deltas = new DeltaRenderer(replica)
    this.#batches = new VersionedCache(replica)
    this.#snapshots = new VersionedCache(replica, maxSharedSnapshots)
  }

  /** The encoded changes after number `from` and the number of the last change covered. `output` is null if the scope shows none. */
  read<T> (scope: FeedScope, key: string, encoding: ChangeEncoding<T>, from: number, limit = DeltaRenderer.maxDeltas): EncodedBatch<T> {
    const { version } = this.replica
    const last = this.#last
    const isSame = last !== undefined && last.from === from && last.version === version && last.limit === limit &&
      last.encoding === encoding.name && last.key === key
    const batch = isSame ? last.batch : this.#encoded(scope, key, encoding, from, limit)
    if (!isSame) this.#last = { batch, version, from, limit, encoding: encoding.name, key }
    // Names of encodings are unique: this encoding made the output that is stored under its name.
    return batch as EncodedBatch<T>
  }

  #encoded<T> (
    scope: FeedScope, key: string, { name, changes: encode }: ChangeEncoding<T>, from: number, limit: number
  ): EncodedBatch<unknown> {
    return this.#batches.get(`${from} ${limit} ${name} ${key}`, () => {
      const { deltas, to } = this.deltas.batch(scope, from, this.changeLog.after(from, DeltaRenderer.maxDeltas), limit)
      return { output: deltas.length > 0 ? encode(deltas, revisionText(this.replica.epoch, to)) : null, to }
    })
  }

  /** All agents that a scope shows now. */
  snapshot ({ view, filter }: FeedScope, key: string): readonly Rendering[] {
    return this.#snapshots.get(key, () => Array.from(select(this.replica, view, filter), entry => entry.rendering))
  }
}
