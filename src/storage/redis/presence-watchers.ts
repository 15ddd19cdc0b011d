import type { BrokerListener, PresenceChange, Roster } from '../message-broker.js'
import type { Subscriptions } from './subscriptions.js'
import { keyOf, readChange } from './texts.js'

export interface WatchingOptions {
  /** Begins the Redis channel of every place. */
  prefix: string
  subscriptions: Subscriptions
  roster: (place: string) => Promise<Roster>
  listener: () => Pick<BrokerListener, 'presenceChanged' | 'presenceReloaded'> | undefined
}

interface Watched {
  readonly place: string
  /** The first roster. */
  first?: Promise<Roster>
  /** Up to which its changes are known. */
  revision: number
  /** Changes that come while the roster is read. */
  waiting: PresenceChange[] | undefined
  /** How often the roster was asked for: the last one counts. */
  reads: number
}

/** Tells how places change that are watched. */
export class Watching {
  readonly #options: WatchingOptions
  readonly #watched = new Map<string, Watched>()

  constructor (options: WatchingOptions) {
    this.#options = options
  }

  receive (name: string, text: string): void {
    const watched = this.#watched.get(name)
    if (watched) this.#offer(watched, readChange(text))
  }

  async watch (place: string): Promise<Roster> {
    const name = this.#options.prefix + keyOf(place)
    const known = this.#watched.get(name)
    const watched = known ?? { place, revision: 0, waiting: [], reads: 0 }
    this.#watched.set(name, watched)
    const first = await (watched.first ??= this.#begin(name, watched))
    return known ? this.#options.roster(place) : first
  }

  unwatch (place: string): void {
    const name = this.#options.prefix + keyOf(place)
    if (this.#watched.delete(name)) this.#options.subscriptions.leave(name)
  }

  /** Tells of every place how it stands. */
  async reload (): Promise<void> {
    await Promise.all(Array.from(this.#watched.values(), watched => this.#load(watched, roster => {
      this.#options.listener()?.presenceReloaded(watched.place, roster)
    })))
  }

  clear (): void {
    this.#watched.clear()
  }

  async #begin (name: string, watched: Watched): Promise<Roster> {
    try {
      await this.#options.subscriptions.join(name)
      return await this.#load(watched)
    } catch (error) {
      if (this.#watched.get(name) === watched) this.unwatch(watched.place)
      throw error
    }
  }

  async #load (watched: Watched, tell?: (roster: Roster) => void): Promise<Roster> {
    watched.waiting ??= []
    const read = ++watched.reads
    const roster = await this.#options.roster(watched.place)
    if (read === watched.reads && this.#isWatched(watched)) {
      tell?.(roster)
      watched.revision = roster.revision
      this.#goOn(watched)
    }
    return roster
  }

  #isWatched (watched: Watched): boolean {
    return this.#watched.get(this.#options.prefix + keyOf(watched.place)) === watched
  }

  #goOn (watched: Watched) {
    const waiting = watched.waiting!
    watched.waiting = undefined
    for (const change of waiting) this.#offer(watched, change)
  }

  #offer (watched: Watched, change: PresenceChange) {
    if (watched.waiting) watched.waiting.push(change)
    else if (change.revision > watched.revision) {
      watched.revision = change.revision
      this.#options.listener()?.presenceChanged(watched.place, change)
    }
  }
}
