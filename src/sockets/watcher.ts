import type { Cursor } from '../feed/cursor.js'
import type { Follower, Readers } from '../feed/readers.js'
import type { Connection } from './connection.js'

/** A connection that follows the feed. It pulls: one frame is on its way at a time. */
export class Watcher implements Follower<string> {
  readonly cursor: Cursor<string>
  readonly #connection: Connection
  readonly #readers: Readers
  #sending = false

  constructor ({ connection, cursor, readers }: { connection: Connection, cursor: Cursor<string>, readers: Readers }) {
    this.cursor = cursor
    this.#connection = connection
    this.#readers = readers
  }

  get place () { return this.cursor.place }

  /** Sends what is owed, if nothing is on its way. */
  pump (): void {
    if (this.#sending || !this.#isCurrent()) return
    const text = this.cursor.next()
    if (text === null) this.#readers.park(this)
    else this.#send(text)
  }

  tell (bookmark: string): void {
    if (this.#isCurrent()) this.#connection.send(bookmark)
  }

  #isCurrent () {
    return this.#connection.watcher === this && this.#connection.isOpen
  }

  #send (text: string) {
    this.#sending = true
    this.#connection.send(text, () => {
      this.#sending = false
      this.pump()
    })
  }
}
