import type { Principal } from '../protocol/principal.js'
import { tokenInvalid } from '../auth/tokens.js'
import type { LongRequest, LongRequests } from '../limits/long-requests.js'
import type { FeedPosition } from '../registry/feed/cursor.js'
import { deltaList, type FeedEncoding } from '../registry/feed/delta.js'
import type { FeedSubscriber, FeedSubscribers } from '../registry/feed/subscribers.js'

interface LongPollOptions {
  position: FeedPosition
  subscribers: FeedSubscribers
  longRequests: LongRequests
  principal: Principal
  address: string
  waitMs: number
  /** Receives the JSON of the response. */
  resolve: (json: string) => void
  /** Receives token-invalid if the principal loses the right to read. */
  reject: (error: Error) => void
}

/** The response of `GET /agents/changes`. It contains no snapshot: after a resync the client reads the list. */
export const changesEncoding: Pick<FeedEncoding<string>, 'name' | 'changes' | 'resync'> = {
  name: 'answers',
  changes: (deltas, revision) => `{"changes":${deltaList(deltas)},"revision":"${revision}"}`,
  resync: revision => `{"changes":[],"revision":"${revision}","resync":true}`
}

/** The changes that are available now, or a resync; null if there is nothing yet. */
export function readChanges (position: FeedPosition): string | null {
  if (position.canContinue()) return position.take(changesEncoding)
  position.skipToNewest()
  return changesEncoding.resync(position.revision)
}

/** A request for changes that waits for the next one, at most `waitMs`. */
export class LongPoll implements FeedSubscriber, LongRequest {
  readonly position: FeedPosition
  readonly principal: Principal
  readonly address: string
  readonly #subscribers: FeedSubscribers
  readonly #longRequests: LongRequests
  readonly #timer: NodeJS.Timeout
  readonly #resolve: (json: string) => void
  readonly #reject: (error: Error) => void

  constructor ({ position, subscribers, longRequests, principal, address, waitMs, resolve, reject }: LongPollOptions) {
    this.position = position
    this.principal = principal
    this.address = address
    this.#subscribers = subscribers
    this.#longRequests = longRequests
    this.#resolve = resolve
    this.#reject = reject
    this.#timer = setTimeout(() => this.#respondNow(), waitMs).unref()
    longRequests.add(this)
    subscribers.add(this)
    subscribers.park(this)
  }

  pump (): void {
    const json = readChanges(this.position)
    if (json === null) this.#subscribers.park(this)
    else this.#respond(json)
  }

  end (reason: string): void {
    this.abort()
    this.#reject(tokenInvalid('revoked', reason))
  }

  announceShutdown (): void {
    this.#respondNow()
  }

  tick (): void { /* has a timer of its own */ }

  /** Stops waiting without a response, for instance because the client has disconnected. */
  abort (): void {
    clearTimeout(this.#timer)
    this.#subscribers.delete(this)
    this.#longRequests.delete(this)
  }

  /** Responds with the current revision and no changes, unless some have just arrived. */
  #respondNow () {
    this.#subscribers.settle(this)
    this.#respond(changesEncoding.changes([], this.position.revision))
  }

  #respond (json: string) {
    this.abort()
    this.#resolve(json)
  }
}
