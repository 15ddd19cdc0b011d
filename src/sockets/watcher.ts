import type { Cursor } from '../registry/feed/cursor.js'
import type { StreamSubscriber, Subscribers } from '../registry/feed/subscribers.js'
import type { Connection } from './connection.js'
import type { EncodedMessage } from '../protocol/encoded-message.js'

/** A connection that follows the feed. It pulls: while it is behind nothing is made for it, and one page goes out at a time. */
export class Watcher implements StreamSubscriber<EncodedMessage> {
  readonly cursor: Cursor<EncodedMessage>
  readonly #connection: Connection
  readonly #subscribers: Subscribers

  constructor ({ connection, cursor, subscribers }: { connection: Connection, cursor: Cursor<EncodedMessage>, subscribers: Subscribers }) {
    this.cursor = cursor
    this.#connection = connection
    this.#subscribers = subscribers
  }

  get position () { return this.cursor.position }

  /** Sends what is owed, if it is not behind. */
  pump (): void {
    if (!this.#isCurrent()) return
    if (this.#connection.isBehind) return this.#goOnLater()
    const message = this.cursor.next()
    if (message === null) return this.#subscribers.park(this)
    this.#connection.push(message)
    if (this.cursor.isUpToDate) this.#subscribers.park(this)
    else this.#goOnLater()
  }

  sendBookmark (bookmark: EncodedMessage): void {
    if (this.#isCurrent()) this.#connection.push(bookmark)
  }

  #goOnLater () {
    this.#connection.whenSent('watch', () => { this.pump() })
  }

  #isCurrent () {
    return this.#connection.watcher === this && this.#connection.isOpen
  }
}
