import { randomBytes } from 'node:crypto'
import type { Clock } from '../../lib/clock.js'
import type { Connections, LinkListener, LinkName } from './connections.js'
import { defaultBrokerLimits, type AppendCommand, type Appended, type MessageBroker, type BrokerLimits, type BrokerListener, type LogPage, type LogPosition, type Roster } from '../message-broker.js'
import { Calls } from './calls.js'
import { Following } from './log-followers.js'
import { PatternsFollowed } from './pattern-followers.js'
import { Presence } from './presence.js'
import { RedisLogs } from './logs.js'
import { brokerScripts } from './scripts/broker.js'
import { Signals } from './signals.js'
import { Subscriptions } from './subscriptions.js'
import { Watching } from './presence-watchers.js'

export interface RedisMessageBrokerOptions {
  /** By the clock of Redis. */
  now: Clock
  /** Until when a command that is sent now may begin, by the clock of Redis; '' for ever. */
  latest: () => string
  onError: (error: unknown) => void
  limits?: Partial<BrokerLimits>
  /** Within which time the peers of a process leave that has ended without a word (ms). */
  presenceTtlMs?: number
}

/** A log that is followed is located four times in the time that Redis keeps it. */
const maxIdleMs = 600_000

/** Lets peers of all processes of a namespace talk, over Redis. */
export class RedisMessageBroker implements MessageBroker, LinkListener {
  readonly process = randomBytes(9).toString('base64url')
  readonly now: Clock
  readonly #connections: Connections
  readonly #onError: (error: unknown) => void
  readonly #calls: Calls
  readonly #names: Subscriptions
  readonly #globs: Subscriptions
  readonly #logs: RedisLogs
  readonly #patterns: PatternsFollowed
  readonly #following: Following
  readonly #presence: Presence
  readonly #watching: Watching
  readonly #signals: Signals
  readonly #logPrefix: string
  readonly #beatMs: number
  readonly #verifyMs: number
  #listener: BrokerListener | undefined
  #timer: NodeJS.Timeout | undefined
  #verifiedAt = 0
  /** Something may have been missed. */
  #isStale = false
  /** Nothing is subscribed to on the connection that there is now. */
  #isCut = false
  #resuming: Promise<void> | undefined

  constructor (connections: Connections, { now, latest, onError, limits, presenceTtlMs = 15_000 }: RedisMessageBrokerOptions) {
    const { base, links: { messages } } = connections
    const allLimits = { ...defaultBrokerLimits, ...limits }
    const prefix = `${base}log:`
    const listener = () => this.#listener
    const behind = () => { this.#isStale = true }
    this.now = now
    this.#connections = connections
    this.#onError = onError
    this.#calls = new Calls(connections, latest)
    this.#names = new Subscriptions(messages, ['subscribe', 'unsubscribe'])
    this.#globs = new Subscriptions(messages, ['psubscribe', 'punsubscribe'])
    this.#logs = new RedisLogs(this.#calls, allLimits)
    this.#patterns = new PatternsFollowed(prefix, this.#globs)
    this.#following = new Following({ prefix, logs: this.#logs, names: this.#names, patterns: this.#patterns, listener, behind })
    // Whoever has ended is missed after two thirds of the time at the latest, and found a sixth later.
    this.#presence = new Presence({ process: this.process, calls: this.#calls, leaseMs: Math.floor(presenceTtlMs * 2 / 3), doubted: () => { this.#resume() } })
    this.#watching = new Watching({ prefix: `${base}place:`, subscriptions: this.#names, roster: place => this.#presence.roster(place), listener })
    this.#signals = new Signals(connections, this.process, (from, body) => { this.#listener?.processMessage(from, body) })
    this.#logPrefix = prefix
    this.#verifyMs = Math.min(allLimits.ageMs, maxIdleMs) / 4
    this.#beatMs = Math.min(presenceTtlMs / 6, this.#verifyMs)
    connections.define(brokerScripts)
    connections.hear((name, text) => { this.#receive(name, text) })
  }

  async open (listener: BrokerListener): Promise<void> {
    await this.#connections.open()
    try {
      await Promise.all([this.#names.join(this.#signals.name), this.#presence.beat()])
      await this.#presence.settle()
    } catch (error) {
      this.#connections.close()
      throw error
    }
    this.#listener = listener
    this.#calls.isOpen = true
    this.#verifiedAt = Date.now()
    this.#connections.listen(this)
    this.#timer = setInterval(() => { this.#beat() }, this.#beatMs).unref()
  }

  async close (): Promise<void> {
    if (!this.#listener) return
    this.#listener = undefined
    this.#calls.isOpen = false
    clearInterval(this.#timer)
    this.#connections.unlisten(this)
    await this.#resuming
    for (const part of [this.#following, this.#patterns, this.#watching, this.#signals, this.#names, this.#globs]) part.clear()
    this.#logs.close()
    // Where Redis cannot be reached others find that this process has ended.
    await Promise.allSettled([this.#presence.close()])
    this.#connections.close()
  }

  async append (command: AppendCommand): Promise<Appended> {
    this.#calls.checkOpen()
    return this.#logs.append(command)
  }

  async read (log: string, query: { since?: LogPosition | undefined, limit: number }): Promise<LogPage> {
    this.#calls.checkOpen()
    return this.#logs.read(log, query)
  }

  async follow (log: string): Promise<LogPosition> {
    this.#calls.checkOpen()
    return this.#following.follow(log)
  }

  unfollow (log: string): void {
    this.#following.unfollow(log)
  }

  async followPattern (pattern: string): Promise<void> {
    this.#calls.checkOpen()
    return this.#patterns.follow(pattern)
  }

  unfollowPattern (pattern: string): void {
    this.#patterns.unfollow(pattern)
  }

  async enter (place: string, peerId: string, metadata: string): Promise<void> {
    this.#calls.checkOpen()
    return this.#presence.enter(place, peerId, metadata)
  }

  async leave (place: string, peerId: string): Promise<void> {
    this.#calls.checkOpen()
    return this.#presence.leave(place, peerId)
  }

  async roster (place: string): Promise<Roster> {
    this.#calls.checkOpen()
    return this.#presence.roster(place)
  }

  async watch (place: string): Promise<Roster> {
    this.#calls.checkOpen()
    return this.#watching.watch(place)
  }

  unwatch (place: string): void {
    this.#watching.unwatch(place)
  }

  sendToProcess (process: string, body: string): void {
    if (this.#calls.isOpen) this.#signals.send(process, body)
  }

  up (): void {
    this.#resume()
  }

  down (name: LinkName): void {
    this.#isCut ||= name === 'messages'
    this.#isStale = true
  }

  #receive (name: string, text: string) {
    if (name === this.#signals.name) this.#signals.receive(text)
    else if (name.startsWith(this.#logPrefix)) this.#following.receive(name, text)
    else this.#watching.receive(name, text)
  }

  #beat () {
    if (this.#isStale || !this.#presence.isSettled) this.#resume()
    else this.#look().catch(error => { this.#failed(error) })
  }

  async #look (): Promise<void> {
    await this.#presence.beat()
    if (!this.#presence.isSettled) this.#resume()
    else if (Date.now() - this.#verifiedAt > this.#verifyMs - this.#beatMs) await this.#verify()
  }

  async #verify (): Promise<void> {
    await this.#following.verify()
    this.#verifiedAt = Date.now()
  }

  #resume () {
    this.#isStale = true
    this.#resuming ??= this.#makeGood()
      .catch(error => { this.#failed(error) })
      .finally(() => { this.#resuming = undefined })
  }

  /** Says here what is so, and finds out what was missed. */
  async #makeGood (): Promise<void> {
    while (this.#isStale && this.#isConnected && this.#listener) {
      this.#isStale = false
      await this.#subscribeAgain()
      await this.#presence.beat()
      await this.#presence.settle()
      await this.#verify()
      await this.#watching.reload()
    }
  }

  async #subscribeAgain (): Promise<void> {
    if (!this.#isCut) return
    this.#isCut = false
    try {
      await Promise.all([this.#names.renew(), this.#globs.renew()])
    } catch (error) {
      this.#isCut = true
      throw error
    }
  }

  get #isConnected () {
    const { commands, messages } = this.#connections.links
    return commands.isReady && messages.isReady
  }

  /** The next beat tries again. Why a connection is missing others say. */
  #failed (error: unknown) {
    this.#isStale = true
    if (this.#isConnected && this.#listener) this.#onError(error)
  }
}
