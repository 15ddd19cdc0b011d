import { scopeKey, type FeedScope } from './change-log.js'
import { revisionText } from '../render.js'
import type { Encoding } from './delta.js'
import type { FeedSource } from './source.js'

export interface PlaceOptions { source: FeedSource, scope: FeedScope, position: number, limit?: number }

/** How far somebody is in the feed, and of which part of it. */
export class Place {
  readonly scope: FeedScope
  /** The same for all whose scope is the same. */
  readonly key: string
  readonly #source: FeedSource
  readonly #limit: number | undefined
  #position: number
  #epoch: string

  /** @param options.limit changes at once */
  constructor ({ source, scope, position, limit }: PlaceOptions) {
    this.scope = scope
    this.key = scopeKey(scope)
    this.#source = source
    this.#limit = limit
    this.#position = position
    this.#epoch = source.registry.replica.epoch
  }

  /** Of the last change that was taken, or was none for this scope. */
  get revision (): string {
    return revisionText(this.#epoch, this.#position)
  }

  /** Nothing between here and `position` was for this scope. */
  moveTo (position: number): void {
    this.#position = position
  }

  /** Goes to this moment. */
  renew (): void {
    const { replica } = this.#source.registry
    this.#position = replica.revision
    this.#epoch = replica.epoch
  }

  /** It has come to the last of all changes. */
  get isNewest (): boolean {
    const { replica, ring } = this.#source.registry
    return this.#position === ring.newest && this.#epoch === replica.epoch
  }

  /** Numbers of another epoch say nothing, and of what the ring has forgotten nobody knows. */
  canContinue (): boolean {
    const { replica, ring } = this.#source.registry
    return this.#epoch === replica.epoch && ring.has(this.#position)
  }

  /** Goes on to the next changes of this scope; null when there are none up to now. */
  take<T> (encoding: Pick<Encoding<T>, 'name' | 'changes'>): T | null {
    while (this.#position < this.#source.registry.ring.newest) {
      const { told, to } = this.#source.batch(this.scope, this.key, encoding, this.#position, this.#limit)
      this.#position = to
      if (told !== null) return told
    }
    return null
  }
}
