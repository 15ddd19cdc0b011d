import type { Clock } from '../../lib/clock.js'
import type { Cursor } from './cursor.js'
import type { Place } from './position.js'
import type { FeedSource } from './source.js'

/** Somebody who waits for what happens. */
export interface Reader {
  readonly place: Place
  /** Takes what is owed, if the last thing has gone out, and has itself parked when nothing is. */
  pump (): void
}

/** Somebody who waits for one thing after the other, and is told how far it is when nothing happens. */
export interface Follower<T = unknown> extends Reader {
  readonly cursor: Cursor<T>
  /** Passes on a bookmark, while nothing else is owed. */
  tell (bookmark: T): void
}

const isFollower = (reader: Reader): reader is Follower => 'tell' in reader

/** Readers who see the same. Those who are parked are owed nothing up to `position`. */
interface Group {
  readonly members: Set<Reader>
  readonly parked: Set<Reader>
  position: number
  epoch: string
}

/**
 * All readers of a process. Changes of one tick leave together, and whether anybody who sees the same is concerned is
 * asked once: whoever waits for something else is not woken.
 */
export class Readers {
  readonly #source: FeedSource
  readonly #groups = new Map<string, Group>()
  readonly #bookmarked = new Map<Reader, number>()
  readonly #bookmarkIntervalMs: number
  readonly #now: Clock
  #flush: NodeJS.Immediate | undefined

  constructor ({ source, bookmarkIntervalMs, now }: { source: FeedSource, bookmarkIntervalMs: number, now: Clock }) {
    this.#source = source
    this.#bookmarkIntervalMs = bookmarkIntervalMs
    this.#now = now
  }

  get size (): number { return this.#bookmarked.size }

  add (reader: Reader): void {
    this.#bookmarked.set(reader, this.#now())
    this.#groupOf(reader).members.add(reader)
  }

  delete (reader: Reader): void {
    const { key } = reader.place
    const group = this.#groups.get(key)
    this.#bookmarked.delete(reader)
    group?.parked.delete(reader)
    if (group?.members.delete(reader) && group.members.size === 0) this.#groups.delete(key)
  }

  /** The reader has everything up to now, and is woken by the next change that concerns it. */
  park (reader: Reader): void {
    const group = this.#groups.get(reader.place.key)
    if (!group?.members.has(reader)) return
    this.#advance(group)
    group.parked.add(reader)
  }

  /** Brings the place of a reader up to date, which may wake it. */
  settle (reader: Reader): void {
    const group = this.#groups.get(reader.place.key)
    if (group) this.#advance(group)
    if (group?.parked.has(reader)) reader.place.moveTo(group.position)
  }

  changed (): void {
    if (this.#groups.size > 0) this.#flush ??= setImmediate(() => this.#pump())
  }

  /** Sends the bookmarks that are due. */
  tick (now: number): void {
    for (const group of this.#groups.values()) {
      this.#advance(group)
      this.#bookmark(group, now)
    }
  }

  close (): void {
    clearImmediate(this.#flush)
    this.#groups.clear()
    this.#bookmarked.clear()
  }

  #groupOf ({ place: { key } }: Reader): Group {
    const known = this.#groups.get(key)
    if (known) return known
    const { ring, replica } = this.#source.registry
    const group: Group = { members: new Set(), parked: new Set(), position: ring.newest, epoch: replica.epoch }
    this.#groups.set(key, group)
    return group
  }

  #pump () {
    this.#flush = undefined
    for (const group of this.#groups.values()) this.#advance(group)
  }

  /** Brings a group up to date, and wakes those in it when there is something for them. */
  #advance (group: Group) {
    const { ring, replica } = this.#source.registry
    const { position: from, epoch } = group
    if (from === ring.newest && epoch === replica.epoch) return
    const [first] = group.parked
    const isOwed = first !== undefined && (epoch !== replica.epoch || !ring.has(from) || this.#source.feed.tellsAny(first.place.scope, ring.after(from, Infinity)))
    group.position = ring.newest
    group.epoch = replica.epoch
    if (isOwed) this.#wake(group, from)
  }

  #wake ({ parked }: Group, from: number) {
    const woken = [...parked]
    parked.clear()
    for (const reader of woken) {
      reader.place.moveTo(from)
      reader.pump()
    }
  }

  /** Readers that still take what came before are told later. */
  #bookmark ({ parked, position }: Group, now: number) {
    const made = new Map<string, unknown>()
    for (const reader of parked) {
      if (!isFollower(reader) || now - this.#bookmarked.get(reader)! < this.#bookmarkIntervalMs) continue
      const { cursor } = reader
      cursor.place.moveTo(position)
      const bookmark = made.get(cursor.encoding.name) ?? cursor.bookmark()
      made.set(cursor.encoding.name, bookmark)
      this.#bookmarked.set(reader, now)
      reader.tell(bookmark)
    }
  }
}
