import type { BrokerListener, LogPosition } from '../message-broker.js'
import type { PatternFollowed, PatternsFollowed } from './pattern-followers.js'
import type { RedisLogs } from './logs.js'
import type { Subscriptions } from './subscriptions.js'
import { keyOf, nameOf, readLive, type Live } from './texts.js'
import { Tracker, type TrackerOptions } from './tracker.js'

export interface FollowingOptions {
  /** Begins the Redis channel of every log. */
  prefix: string
  logs: RedisLogs
  names: Subscriptions
  patterns: PatternsFollowed
  listener: () => Pick<BrokerListener, 'appended' | 'logGap'> | undefined
  /** Something could not be read: `verify` is to be called when that may work. */
  behind: () => void
}

interface Followed { readonly tracker: Tracker, joined?: Promise<void> }
interface Met { readonly tracker: Tracker, readonly by: PatternFollowed }

const maxMet = 10_000

/** The logs that are followed, by their names in Redis. */
export class Following {
  readonly #options: FollowingOptions
  readonly #trackerOptions: TrackerOptions
  readonly #followed = new Map<string, Followed>()
  /** Those that only patterns let in; first those that were silent longest. */
  readonly #met = new Map<string, Met>()

  constructor (options: FollowingOptions) {
    const { logs, listener, behind } = options
    this.#options = options
    this.#trackerOptions = {
      read: (log, since, limit) => logs.read(log, { since, limit }, true),
      tell: (log, epoch, entry) => { listener()?.appended(log, epoch, entry) },
      lost: (log, position) => { listener()?.logGap(log, position) },
      behind
    }
  }

  receive (name: string, text: string): void {
    this.#route(name, readLive(text))
  }

  async follow (log: string): Promise<LogPosition> {
    const name = this.#options.prefix + keyOf(log)
    const followed = this.#followed.get(name) ?? this.#add(name, log)
    await (followed.joined ??= this.#join(name, followed))
    return { epoch: followed.tracker.epoch, offset: followed.tracker.offset }
  }

  unfollow (log: string): void {
    const name = this.#options.prefix + keyOf(log)
    const followed = this.#followed.get(name)
    if (!followed) return
    this.#followed.delete(name)
    this.#options.names.leave(name)
    const { tracker } = followed
    const by = this.#letInBy(tracker)
    if (tracker.isLocated && by) this.#keep(name, { tracker, by })
    else for (const live of tracker.end()) this.#route(name, live)
  }

  /** Finds and makes good what was missed. */
  async verify (): Promise<void> {
    const met = [...this.#met.keys()].map(name => this.#metAt(name)).filter(tracker => tracker !== undefined)
    await Promise.all([...Array.from(this.#followed.values(), ({ tracker }) => tracker), ...met].map(tracker => this.#locate(tracker)))
  }

  clear (): void {
    this.#followed.clear()
    this.#met.clear()
  }

  #route (name: string, live: Live) {
    const tracker = this.#followed.get(name)?.tracker ?? this.#metAt(name) ?? this.#meet(name, live)
    tracker?.offer(live)
  }

  #letInBy ({ channel }: Tracker): PatternFollowed | undefined {
    return channel === undefined ? undefined : this.#options.patterns.find(channel)
  }

  #keep (name: string, met: Met) {
    this.#met.set(name, met)
    if (this.#met.size > maxMet) this.#met.delete(this.#met.keys().next().value!)
  }

  /** One that has been let in all the time. */
  #metAt (name: string): Tracker | undefined {
    const met = this.#met.get(name)
    if (!met) return undefined
    const { tracker, by: { until } } = met
    const by = until === Infinity ? met.by : this.#letInBy(tracker)
    this.#met.delete(name)
    if (by && by.from < until) this.#keep(name, { tracker, by })
    else tracker.end()
    return this.#met.get(name)?.tracker
  }

  /** The first entry of a log that nobody follows by name. */
  #meet (name: string, live: Live): Tracker | undefined {
    const tracker = this.#newTracker(name)
    const by = this.#letInBy(tracker)
    if (!by) return undefined
    tracker.begin(live)
    this.#keep(name, { tracker, by })
    return tracker
  }

  #newTracker (name: string): Tracker {
    return new Tracker(nameOf(name.slice(this.#options.prefix.length)), this.#trackerOptions)
  }

  #add (name: string, log: string): Followed {
    const followed = { tracker: this.#metAt(name) ?? new Tracker(log, this.#trackerOptions) }
    this.#met.delete(name)
    this.#followed.set(name, followed)
    return followed
  }

  async #join (name: string, followed: Followed): Promise<void> {
    try {
      await this.#options.names.join(name)
      await this.#locate(followed.tracker)
    } catch (error) {
      if (this.#followed.get(name) === followed) this.unfollow(followed.tracker.log)
      throw error
    }
  }

  async #locate (tracker: Tracker): Promise<void> {
    await tracker.locate(await this.#options.logs.locate(tracker))
  }
}
