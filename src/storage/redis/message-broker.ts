import { randomBytes } from 'node:crypto'
import type { Clock } from '../../lib/clock.js'
import {
  defaultBrokerLimits, type AppendCommand, type Appended, type BrokerLimits, type BrokerListener, type LogPage, type LogPosition,
  type MessageBroker, type Roster
} from '../message-broker.js'
import { BrokerCommands, RedisLogs } from './broker-commands.js'
import { Subscriptions, type Connections, type LinkName } from './connections.js'
import { LogFollowers, PatternFollowers } from './log-followers.js'
import { PresenceWatchers, RedisPresenceSets } from './presence.js'

/** Messages to other processes. The messages of one tick to one process share a Redis message. */
class RedisProcessChannel {
  readonly #connections: Connections
  readonly #process: string
  readonly #received: (from: string, body: string) => void
  #pending = new Map<string, string[]>()

  constructor (connections: Connections, process: string, received: (from: string, body: string) => void) {
    this.#connections = connections
    this.#process = process
    this.#received = received
  }

  /** The Redis channel of this process. */
  get channel () { return this.#channelOf(this.#process) }

  send (process: string, body: string): void {
    const pending = this.#pending.get(process)
    if (pending) pending.push(body)
    else {
      if (this.#pending.size === 0) setImmediate(() => { this.#flush() })
      this.#pending.set(process, [body])
    }
  }

  receive (text: string): void {
    const [from, ...bodies]: [string, ...string[]] = JSON.parse(text)
    for (const body of bodies) this.#received(from, body)
  }

  clear (): void {
    this.#pending.clear()
  }

  #flush () {
    const pending = this.#pending
    this.#pending = new Map()
    for (const [process, bodies] of pending) this.#publish(process, JSON.stringify([this.#process, ...bodies]))
  }

  /** A message that cannot be sent is dropped: callers that expect an answer have a deadline. */
  #publish (process: string, text: string) {
    if (process === this.#process) this.receive(text)
    else Promise.allSettled([this.#connections.links.commands.client.publish(this.#channelOf(process), text)])
  }

  #channelOf (process: string): string {
    return `${this.#connections.base}process:${process}`
  }
}

export interface RedisMessageBrokerOptions {
  /** The clock of Redis. */
  now: Clock
  /** The latest time of Redis at which a script that is sent now may begin, or ''. */
  latest: () => string
  onError: (error: unknown) => void
  limits?: Partial<BrokerLimits>
  /** Within which time the peers of a process that ended without closing are removed (ms). */
  presenceTtlMs?: number
}

/** Redis deletes an idle log after this time or its age limit; a followed log is located four times within it. */
const maxIdleMs = 600_000

/** Connects the peers of all processes of a namespace. */
export class RedisMessageBroker implements MessageBroker {
  readonly process = randomBytes(9).toString('base64url')
  readonly now: Clock
  readonly #connections: Connections
  readonly #onError: (error: unknown) => void
  readonly #commands: BrokerCommands
  readonly #channels: Subscriptions
  readonly #globs: Subscriptions
  readonly #logs: RedisLogs
  readonly #patterns: PatternFollowers
  readonly #followers: LogFollowers
  readonly #sets: RedisPresenceSets
  readonly #watchers: PresenceWatchers
  readonly #processChannel: RedisProcessChannel
  readonly #logPrefix: string
  readonly #heartbeatMs: number
  readonly #verifyMs: number
  #listener: BrokerListener | undefined
  #unsubscribe: Array<() => void> = []
  #timer: NodeJS.Timeout | undefined
  #verifiedAt = 0
  /** Events may have been missed. */
  #isStale = false
  /** The current connection for messages has no subscriptions. */
  #isUnsubscribed = false
  #recovering: Promise<void> | undefined

  constructor (connections: Connections, { now, latest, onError, limits, presenceTtlMs = 15_000 }: RedisMessageBrokerOptions) {
    const { base, links: { messages } } = connections
    const allLimits = { ...defaultBrokerLimits, ...limits }
    const prefix = `${base}log:`
    const listener = () => this.#listener
    const commands = new BrokerCommands(connections, latest)
    const channels = new Subscriptions(messages, ['subscribe', 'unsubscribe'])
    const globs = new Subscriptions(messages, ['psubscribe', 'punsubscribe'])
    const logs = new RedisLogs(commands, allLimits)
    const patterns = new PatternFollowers(prefix, globs)
    // A process that has ended is missed after at most two thirds of the time, and found a sixth of it later.
    const leaseMs = Math.floor(presenceTtlMs * 2 / 3)
    const sets = new RedisPresenceSets({ process: this.process, commands, leaseMs, expired: () => { this.#recover() } })
    this.now = now
    this.#connections = connections
    this.#onError = onError
    this.#commands = commands
    this.#channels = channels
    this.#globs = globs
    this.#logs = logs
    this.#patterns = patterns
    const readFailed = () => { this.#isStale = true }
    this.#followers = new LogFollowers({ prefix, logs, subscriptions: channels, patterns, listener, readFailed })
    this.#sets = sets
    this.#watchers = new PresenceWatchers({ prefix: `${base}place:`, subscriptions: channels, roster: set => sets.roster(set), listener })
    this.#processChannel = new RedisProcessChannel(connections, this.process, (from, body) => {
      this.#listener?.processMessage(from, body)
    })
    this.#logPrefix = prefix
    this.#verifyMs = Math.min(allLimits.ageMs, maxIdleMs) / 4
    this.#heartbeatMs = Math.min(presenceTtlMs / 6, this.#verifyMs)
    connections.events.on('channelMessage', (channel, text) => { this.#receive(channel, text) })
  }

  async open (listener: BrokerListener): Promise<void> {
    const { events } = this.#connections
    await this.#connections.open()
    try {
      await Promise.all([this.#channels.join(this.#processChannel.channel), this.#sets.heartbeat()])
      await this.#sets.settle()
    } catch (error) {
      this.#connections.close()
      throw error
    }
    this.#listener = listener
    this.#commands.isOpen = true
    this.#verifiedAt = Date.now()
    this.#unsubscribe = [events.on('up', () => { this.#recover() }), events.on('down', name => { this.#down(name) })]
    this.#timer = setInterval(() => { this.#heartbeat() }, this.#heartbeatMs).unref()
  }

  async close (): Promise<void> {
    if (!this.#listener) return
    this.#listener = undefined
    this.#commands.isOpen = false
    clearInterval(this.#timer)
    for (const unsubscribe of this.#unsubscribe) unsubscribe()
    await this.#recovering
    const parts = [this.#followers, this.#patterns, this.#watchers, this.#processChannel, this.#channels, this.#globs]
    for (const part of parts) part.clear()
    this.#logs.close()
    // If Redis cannot be reached, the other processes find that this one has ended.
    await Promise.allSettled([this.#sets.close()])
    this.#connections.close()
  }

  async append (command: AppendCommand): Promise<Appended> {
    this.#commands.checkOpen()
    return this.#logs.append(command)
  }

  async read (log: string, query: { since?: LogPosition | undefined, limit: number }): Promise<LogPage> {
    this.#commands.checkOpen()
    return this.#logs.read(log, query)
  }

  async follow (log: string): Promise<LogPosition> {
    this.#commands.checkOpen()
    return this.#followers.follow(log)
  }

  unfollow (log: string): void {
    this.#followers.unfollow(log)
  }

  async followPattern (pattern: string): Promise<void> {
    this.#commands.checkOpen()
    return this.#patterns.follow(pattern)
  }

  unfollowPattern (pattern: string): void {
    this.#patterns.unfollow(pattern)
  }

  async enter (set: string, peerId: string, metadata: string): Promise<void> {
    this.#commands.checkOpen()
    return this.#sets.enter(set, peerId, metadata)
  }

  async leave (set: string, peerId: string): Promise<void> {
    this.#commands.checkOpen()
    return this.#sets.leave(set, peerId)
  }

  async roster (set: string): Promise<Roster> {
    this.#commands.checkOpen()
    return this.#sets.roster(set)
  }

  async watch (set: string): Promise<Roster> {
    this.#commands.checkOpen()
    return this.#watchers.watch(set)
  }

  unwatch (set: string): void {
    this.#watchers.unwatch(set)
  }

  sendToProcess (process: string, body: string): void {
    if (this.#commands.isOpen) this.#processChannel.send(process, body)
  }

  #down (name: LinkName) {
    this.#isUnsubscribed ||= name === 'messages'
    this.#isStale = true
  }

  #receive (channel: string, text: string) {
    if (channel === this.#processChannel.channel) this.#processChannel.receive(text)
    else if (channel.startsWith(this.#logPrefix)) this.#followers.receive(channel, text)
    else this.#watchers.receive(channel, text)
  }

  #heartbeat () {
    if (this.#isStale || !this.#sets.isSettled) this.#recover()
    else this.#check().catch(error => { this.#failed(error) })
  }

  async #check (): Promise<void> {
    await this.#sets.heartbeat()
    if (!this.#sets.isSettled) this.#recover()
    else if (Date.now() - this.#verifiedAt > this.#verifyMs - this.#heartbeatMs) await this.#verify()
  }

  async #verify (): Promise<void> {
    await this.#followers.verify()
    this.#verifiedAt = Date.now()
  }

  #recover () {
    this.#isStale = true
    this.#recovering ??= this.#catchUp()
      .catch(error => { this.#failed(error) })
      .finally(() => { this.#recovering = undefined })
  }

  /** Restores the state of this process in Redis, and catches up with missed events. */
  async #catchUp (): Promise<void> {
    while (this.#isStale && this.#isConnected && this.#listener) {
      this.#isStale = false
      await this.#subscribeAgain()
      await this.#sets.heartbeat()
      await this.#sets.settle()
      await this.#verify()
      await this.#watchers.reload()
    }
  }

  async #subscribeAgain (): Promise<void> {
    if (!this.#isUnsubscribed) return
    this.#isUnsubscribed = false
    try {
      await Promise.all([this.#channels.renew(), this.#globs.renew()])
    } catch (error) {
      this.#isUnsubscribed = true
      throw error
    }
  }

  get #isConnected () {
    const { commands, messages } = this.#connections.links
    return commands.isReady && messages.isReady
  }

  /** The next heartbeat tries again. The agent store reports lost connections. */
  #failed (error: unknown) {
    this.#isStale = true
    if (this.#isConnected && this.#listener) this.#onError(error)
  }
}
