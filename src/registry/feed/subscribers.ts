import type { Clock } from '../../lib/clock.js'
import type { Feed } from './change-log.js'
import type { Cursor, FeedPosition } from './cursor.js'

/** A client that waits for changes. */
export interface FeedSubscriber {
  readonly position: FeedPosition
  /** Sends what is pending, unless the last output is still on its way, and parks when nothing is pending. */
  pump (): void
}

/** A client that follows the feed and receives bookmarks. */
export interface StreamSubscriber<T = unknown> extends FeedSubscriber {
  readonly cursor: Cursor<T>
  /** Sends a bookmark. Called only while nothing else is pending. */
  sendBookmark (bookmark: T): void
}

const isStream = (subscriber: FeedSubscriber): subscriber is StreamSubscriber => 'sendBookmark' in subscriber

/** Subscribers of one scope. Nothing up to `position` is pending for those that are parked. */
interface Group {
  readonly members: Set<FeedSubscriber>
  readonly parked: Set<FeedSubscriber>
  position: number
  epoch: string
}

/**
 * All subscribers of this process. Changes of one tick of the event loop are sent together, and each scope is checked
 * once: a change wakes only subscribers whose scope shows it.
 */
export class FeedSubscribers {
  readonly #feed: Feed
  readonly #groups = new Map<string, Group>()
  /** When each subscriber received its last bookmark. */
  readonly #bookmarkedAt = new Map<FeedSubscriber, number>()
  readonly #bookmarkIntervalMs: number
  readonly #now: Clock
  #flush: NodeJS.Immediate | undefined

  constructor ({ feed, bookmarkIntervalMs, now }: { feed: Feed, bookmarkIntervalMs: number, now: Clock }) {
    this.#feed = feed
    this.#bookmarkIntervalMs = bookmarkIntervalMs
    this.#now = now
  }

  get size (): number { return this.#bookmarkedAt.size }

  add (subscriber: FeedSubscriber): void {
    this.#bookmarkedAt.set(subscriber, this.#now())
    this.#groupOf(subscriber).members.add(subscriber)
  }

  delete (subscriber: FeedSubscriber): void {
    const { key } = subscriber.position
    const group = this.#groups.get(key)
    this.#bookmarkedAt.delete(subscriber)
    group?.parked.delete(subscriber)
    if (group?.members.delete(subscriber) && group.members.size === 0) this.#groups.delete(key)
  }

  /** The subscriber is up to date: the next change that its scope shows wakes it. */
  park (subscriber: FeedSubscriber): void {
    const group = this.#groups.get(subscriber.position.key)
    if (!group?.members.has(subscriber)) return
    this.#advance(group)
    group.parked.add(subscriber)
  }

  /** Brings the position of a parked subscriber up to date, or wakes it if something is pending. */
  settle (subscriber: FeedSubscriber): void {
    const group = this.#groups.get(subscriber.position.key)
    if (group) this.#advance(group)
    if (group?.parked.has(subscriber)) subscriber.position.skipTo(group.position)
  }

  /** Call after every change of the registry. */
  changed (): void {
    if (this.#groups.size > 0) this.#flush ??= setImmediate(() => this.#pump())
  }

  /** Sends the bookmarks that are due. */
  tick (now: number): void {
    for (const group of this.#groups.values()) {
      this.#advance(group)
      this.#sendBookmarks(group, now)
    }
  }

  close (): void {
    clearImmediate(this.#flush)
    this.#groups.clear()
    this.#bookmarkedAt.clear()
  }

  #groupOf ({ position: { key } }: FeedSubscriber): Group {
    const known = this.#groups.get(key)
    if (known) return known
    const { changeLog, replica } = this.#feed
    const group: Group = { members: new Set(), parked: new Set(), position: changeLog.newest, epoch: replica.epoch }
    this.#groups.set(key, group)
    return group
  }

  #pump () {
    this.#flush = undefined
    for (const group of this.#groups.values()) this.#advance(group)
  }

  /** Moves a group to the newest change, and wakes its parked subscribers if its scope shows anything on the way. */
  #advance (group: Group) {
    const { changeLog, replica, deltas } = this.#feed
    const { position: from, epoch } = group
    if (from === changeLog.newest && epoch === replica.epoch) return
    const [first] = group.parked
    const isPending = first !== undefined && (epoch !== replica.epoch || !changeLog.has(from) ||
      deltas.showsAny(first.position.scope, changeLog.after(from, Infinity)))
    group.position = changeLog.newest
    group.epoch = replica.epoch
    if (isPending) this.#wake(group, from)
  }

  #wake ({ parked }: Group, from: number) {
    const woken = [...parked]
    parked.clear()
    for (const subscriber of woken) {
      subscriber.position.skipTo(from)
      subscriber.pump()
    }
  }

  /** Subscribers that are behind receive their bookmark later. */
  #sendBookmarks ({ parked, position }: Group, now: number) {
    const encoded = new Map<string, unknown>()
    for (const subscriber of parked) {
      const lastAt = this.#bookmarkedAt.get(subscriber) ?? now
      if (!isStream(subscriber) || now - lastAt < this.#bookmarkIntervalMs) continue
      const { cursor } = subscriber
      cursor.position.skipTo(position)
      const bookmark = encoded.get(cursor.encoding.name) ?? cursor.bookmark()
      encoded.set(cursor.encoding.name, bookmark)
      this.#bookmarkedAt.set(subscriber, now)
      subscriber.sendBookmark(bookmark)
    }
  }
}
