import { deleteOldest } from '../../lib/expiring-map.js'
import { PatternTrie } from '../../lib/pattern-trie.js'
import { channelKey, channelOfKey } from '../../protocol/channel-names.js'
import type { BrokerListener, LogEntry, LogPage, LogPosition } from '../message-broker.js'
import { decodeName, encodeName, globOf, readLiveEntry, type LiveEntry, type RedisLogs } from './broker-commands.js'
import type { Subscriptions } from './connections.js'

interface LogFollowerOptions {
  /** Reads entries after a position. When that is of another epoch: only the entries of the current epoch. */
  read: (log: string, since: LogPosition, limit: number) => Promise<LogPage>
  appended: (log: string, epoch: string, entry: LogEntry) => void
  gap: (log: string, position: LogPosition) => void
  /** A read has failed: `locate` must be called when Redis can be reached. */
  readFailed: () => void
}

const entriesPerRead = 500
const maxQueued = 5000

/** Delivers the entries of one log in order, each once, from published entries and from reads that fill gaps. */
export class LogFollower {
  readonly log: string
  readonly channel: string | undefined
  readonly #options: LogFollowerOptions
  #epoch = ''
  #offset = 0
  /** Published entries that arrive before the position of the log is known, or while a gap is filled. */
  #queue: LiveEntry[] | undefined = []
  #isEnded = false

  constructor (log: string, options: LogFollowerOptions) {
    this.log = log
    this.channel = channelOfKey(log)
    this.#options = options
  }

  get epoch () { return this.#epoch }
  get offset () { return this.#offset }
  get isLocated () { return this.#epoch !== '' }

  /** Starts at an entry, which the caller offers next. */
  begin ({ epoch, entry }: LiveEntry): void {
    this.#epoch = epoch
    this.#offset = entry.offset - 1
    this.#resume()
  }

  /** Ends delivery. @returns the entries that were not delivered because the position of the log was not known */
  end (): readonly LiveEntry[] {
    this.#isEnded = true
    return this.isLocated ? [] : this.#queue ?? []
  }

  offer (live: LiveEntry): void {
    const { epoch, entry } = live
    if (this.#queue) enqueue(this.#queue, live)
    else if (epoch !== this.#epoch || entry.offset > this.#offset + 1) this.#fillGap()
    else if (entry.offset > this.#offset) this.#deliver(entry)
  }

  /** Takes the newest position of the log: the start of delivery, or a sign that entries are missing. */
  async locate (position: LogPosition): Promise<void> {
    if (!this.isLocated) this.#start(position)
    else if (!this.#queue && (position.epoch !== this.#epoch || position.offset > this.#offset)) await this.#fillGap()
  }

  /** Entries that arrived after the subscription are delivered too. */
  #start ({ epoch, offset }: LogPosition) {
    const first = this.#queue?.[0]
    this.#epoch = epoch
    this.#offset = first?.epoch === epoch ? Math.min(offset, first.entry.offset - 1) : offset
    this.#resume()
  }

  #deliver (entry: LogEntry) {
    this.#offset = entry.offset
    if (!this.#isEnded) this.#options.appended(this.log, this.#epoch, entry)
  }

  async #fillGap (): Promise<void> {
    this.#queue = []
    try {
      while (!this.#isEnded && await this.#readPage());
    } catch {
      this.#queue = []
      this.#options.readFailed()
    }
    this.#resume()
  }

  /** @returns whether there may be another page */
  async #readPage (): Promise<boolean> {
    const since = { epoch: this.#epoch, offset: this.#offset }
    const { epoch, offset, entries, recovered } = await this.#options.read(this.log, since, entriesPerRead)
    if (!recovered) this.#reportGap({ epoch, offset: (entries[0]?.offset ?? offset + 1) - 1 })
    for (const entry of entries) this.#deliver(entry)
    return entries.length === entriesPerRead
  }

  #reportGap (position: LogPosition) {
    this.#epoch = position.epoch
    this.#offset = position.offset
    if (!this.#isEnded) this.#options.gap(this.log, position)
  }

  #resume () {
    const queue = this.#queue ?? []
    this.#queue = undefined
    for (const live of queue) this.offer(live)
  }
}

/** When the queue is full, the last entry is sufficient to find that the others are missing. */
function enqueue (queue: LiveEntry[], live: LiveEntry) {
  if (queue.length >= maxQueued) queue.length = 0
  queue.push(live)
}

/** A followed pattern. `from` and `until` order the calls that follow and unfollow patterns. */
interface FollowedPattern { readonly glob: string, readonly from: number, until: number, readonly joined: Promise<void> }

/** Redis matches every glob with every message: beyond this number, all channels are received and filtered here. */
const maxGlobs = 64

/** The followed patterns. Redis is subscribed to a glob for each of them, which matches its channels and possibly others. */
export class PatternFollowers {
  readonly #prefix: string
  readonly #subscriptions: Subscriptions
  readonly #patterns = new PatternTrie<FollowedPattern>()
  #calls = 0

  /** @param prefix the beginning of the Redis channel of every log */
  constructor (prefix: string, subscriptions: Subscriptions) {
    this.#prefix = prefix + channelKey('')
    this.#subscriptions = subscriptions
  }

  /** @returns one of the patterns that match a channel */
  find (channel: string): FollowedPattern | undefined {
    return this.#patterns.find(channel)
  }

  async follow (pattern: string): Promise<void> {
    const followed = this.#patterns.get(pattern) ?? this.#add(pattern)
    try {
      await followed.joined
    } catch (error) {
      if (this.#patterns.get(pattern) === followed) this.unfollow(pattern)
      throw error
    }
  }

  unfollow (pattern: string): void {
    const followed = this.#patterns.get(pattern)
    if (!followed) return
    this.#patterns.delete(pattern)
    this.#subscriptions.leave(followed.glob)
    followed.until = this.#calls++
  }

  clear (): void {
    this.#patterns.clear()
  }

  #add (pattern: string): FollowedPattern {
    const own = globOf(this.#prefix, pattern)
    const glob = this.#subscriptions.size < maxGlobs || this.#subscriptions.has(own) ? own : globOf(this.#prefix, '**')
    const followed = { glob, from: this.#calls++, until: Infinity, joined: this.#subscriptions.join(glob) }
    this.#patterns.set(pattern, followed)
    return followed
  }
}

interface LogFollowersOptions {
  /** The beginning of the Redis channel of every log. */
  prefix: string
  logs: RedisLogs
  subscriptions: Subscriptions
  patterns: PatternFollowers
  listener: () => Pick<BrokerListener, 'appended' | 'logGap'> | undefined
  /** A read has failed: `verify` must be called when Redis can be reached. */
  readFailed: () => void
}

interface FollowedLog { readonly follower: LogFollower, joined?: Promise<void> }
interface MatchedLog { readonly follower: LogFollower, readonly by: FollowedPattern }

const maxMatched = 10_000

/** The followers of logs, by the Redis channel of the log. */
export class LogFollowers {
  readonly #options: LogFollowersOptions
  readonly #followerOptions: LogFollowerOptions
  readonly #followed = new Map<string, FollowedLog>()
  /** Logs that are followed only by a pattern, least recently active first. */
  readonly #matched = new Map<string, MatchedLog>()

  constructor (options: LogFollowersOptions) {
    const { logs, listener, readFailed } = options
    this.#options = options
    this.#followerOptions = {
      read: (log, since, limit) => logs.read(log, { since, limit }, true),
      appended: (log, epoch, entry) => { listener()?.appended(log, epoch, entry) },
      gap: (log, position) => { listener()?.logGap(log, position) },
      readFailed
    }
  }

  receive (name: string, text: string): void {
    this.#route(name, readLiveEntry(text))
  }

  async follow (log: string): Promise<LogPosition> {
    const name = this.#options.prefix + encodeName(log)
    const followed = this.#followed.get(name) ?? this.#add(name, log)
    await (followed.joined ??= this.#join(name, followed))
    return { epoch: followed.follower.epoch, offset: followed.follower.offset }
  }

  unfollow (log: string): void {
    const name = this.#options.prefix + encodeName(log)
    const followed = this.#followed.get(name)
    if (!followed) return
    this.#followed.delete(name)
    this.#options.subscriptions.leave(name)
    const { follower } = followed
    const by = this.#patternOf(follower)
    if (follower.isLocated && by) this.#keepMatched(name, { follower, by })
    else for (const live of follower.end()) this.#route(name, live)
  }

  /** Finds and fills gaps. */
  async verify (): Promise<void> {
    const matched = [...this.#matched.keys()].map(name => this.#matchedAt(name)).filter(follower => follower !== undefined)
    const followed = Array.from(this.#followed.values(), ({ follower }) => follower)
    await Promise.all([...followed, ...matched].map(follower => this.#locate(follower)))
  }

  clear (): void {
    this.#followed.clear()
    this.#matched.clear()
  }

  #route (name: string, live: LiveEntry) {
    const follower = this.#followed.get(name)?.follower ?? this.#matchedAt(name) ?? this.#match(name, live)
    follower?.offer(live)
  }

  #patternOf ({ channel }: LogFollower): FollowedPattern | undefined {
    return channel === undefined ? undefined : this.#options.patterns.find(channel)
  }

  #keepMatched (name: string, matched: MatchedLog) {
    this.#matched.set(name, matched)
    if (this.#matched.size > maxMatched) deleteOldest(this.#matched)
  }

  /** @returns the follower of a log that patterns have matched without interruption */
  #matchedAt (name: string): LogFollower | undefined {
    const matched = this.#matched.get(name)
    if (!matched) return undefined
    const { follower, by: { until } } = matched
    const by = until === Infinity ? matched.by : this.#patternOf(follower)
    this.#matched.delete(name)
    if (by && by.from < until) this.#keepMatched(name, { follower, by })
    else follower.end()
    return this.#matched.get(name)?.follower
  }

  /** Creates a follower for the first entry of a log that only a pattern matches. */
  #match (name: string, live: LiveEntry): LogFollower | undefined {
    const follower = new LogFollower(decodeName(name.slice(this.#options.prefix.length)), this.#followerOptions)
    const by = this.#patternOf(follower)
    if (!by) return undefined
    follower.begin(live)
    this.#keepMatched(name, { follower, by })
    return follower
  }

  #add (name: string, log: string): FollowedLog {
    const followed = { follower: this.#matchedAt(name) ?? new LogFollower(log, this.#followerOptions) }
    this.#matched.delete(name)
    this.#followed.set(name, followed)
    return followed
  }

  async #join (name: string, followed: FollowedLog): Promise<void> {
    try {
      await this.#options.subscriptions.join(name)
      await this.#locate(followed.follower)
    } catch (error) {
      if (this.#followed.get(name) === followed) this.unfollow(followed.follower.log)
      throw error
    }
  }

  async #locate (follower: LogFollower): Promise<void> {
    await follower.locate(await this.#options.logs.locate(follower))
  }
}
