import type { WatchFrame } from '../protocol/frames/common.js'
import { EncodedMessage } from '../protocol/encoded-message.js'
import { Cursor } from '../registry/feed/cursor.js'
import type { Feed } from '../registry/feed/change-log.js'
import { deltaList, pageMembers, type FeedEncoding } from '../registry/feed/delta.js'
import type { StreamSubscriber, FeedSubscribers } from '../registry/feed/subscribers.js'
import type { Registry } from '../registry/registry.js'
import { revisionText, type View } from '../registry/render.js'
import type { Connection } from './connection.js'

/** The entries of the feed as frames. */
const frames: FeedEncoding<EncodedMessage> = {
  name: 'frames',
  changes: deltas => new EncodedMessage(`{"type":"agents_delta","changes":${deltaList(deltas)}}`),
  page: page => new EncodedMessage(`{"type":"agents_snapshot",${pageMembers(page)}}`),
  resync: revision => new EncodedMessage(`{"type":"resync","revision":"${revision}"}`),
  bookmark: bookmark => new EncodedMessage(JSON.stringify({ type: 'bookmark', ...bookmark }))
}

/** A connection that follows the feed of changes. It pulls one message at a time, and nothing is made for it while it is behind. */
class Watcher implements StreamSubscriber<EncodedMessage> {
  readonly cursor: Cursor<EncodedMessage>
  readonly #connection: Connection
  readonly #subscribers: FeedSubscribers
  #isStopped = false

  constructor ({ connection, cursor, subscribers }: {
    connection: Connection
    cursor: Cursor<EncodedMessage>
    subscribers: FeedSubscribers
  }) {
    this.cursor = cursor
    this.#connection = connection
    this.#subscribers = subscribers
    subscribers.add(this)
  }

  get position () { return this.cursor.position }
  get #isActive () { return !this.#isStopped && this.#connection.isOpen }

  /** Sends the next message unless the connection is behind. */
  pump (): void {
    if (!this.#isActive) return
    if (this.#connection.isBehind) return this.#pumpLater()
    const message = this.cursor.next()
    if (message === null) return this.#subscribers.park(this)
    this.#connection.push(message)
    if (this.cursor.isUpToDate) this.#subscribers.park(this)
    else this.#pumpLater()
  }

  sendBookmark (bookmark: EncodedMessage): void {
    if (this.#isActive) this.#connection.push(bookmark)
  }

  stop (): void {
    this.#isStopped = true
    this.#subscribers.delete(this)
  }

  #pumpLater () {
    this.#connection.whenSent('watch', () => { this.pump() })
  }
}

/** The connections that watch the registry. */
export class Watches {
  readonly #registry: Registry
  readonly #feed: Feed
  readonly #subscribers: FeedSubscribers
  readonly #watchers = new Map<Connection, Watcher>()

  constructor ({ registry, feed, subscribers }: { registry: Registry, feed: Feed, subscribers: FeedSubscribers }) {
    this.#registry = registry
    this.#feed = feed
    this.#subscribers = subscribers
  }

  /**
   * Starts the feed after `since` or, without it, from the current revision. It replaces an earlier feed of the connection.
   * @param acknowledge called with the revision at which the feed starts, before the first message is sent
   */
  start (connection: Connection, view: View, { since, snapshot, filter = {} }: WatchFrame, acknowledge: (revision: string) => void): void {
    const { revision, epoch } = this.#registry.replica
    const known = since === undefined ? revision : this.#registry.positionOf(since)
    const position = snapshot ? revision : known ?? revision
    this.stop(connection)
    const cursor = new Cursor({ feed: this.#feed, scope: { view, filter }, encoding: frames, position })
    const watcher = new Watcher({ connection, cursor, subscribers: this.#subscribers })
    this.#watchers.set(connection, watcher)
    connection.isWatching = true
    acknowledge(revisionText(epoch, position))
    if (known === undefined) cursor.restart()
    else if (snapshot) cursor.snapshot()
    watcher.pump()
  }

  /** Ends the feed of a connection, if it has one. */
  stop (connection: Connection): void {
    this.#watchers.get(connection)?.stop()
    this.#watchers.delete(connection)
    connection.isWatching = false
  }
}
