import { randomBytes } from 'node:crypto'
import { monotonicClock, type Clock } from '../../lib/clock.js'
import { problem } from '../../errors.js'
import { ExpiringMap } from '../../lib/expiring-map.js'
import { defaultBrokerLimits, type AppendCommand, type Appended, type MessageBroker, type BrokerLimits, type BrokerListener, type LogEntry, type LogPage, type LogPosition, type PresenceChange, type Roster } from '../message-broker.js'
import { MemoryLogs, type LogsLimits } from './logs.js'
import { MemoryPlaces } from './presence-sets.js'
import { channelOf, sendingOf } from '../log-names.js'
import { PatternTrie } from '../../lib/pattern-trie.js'

export interface MemoryMessageBrokerOptions {
  clock?: Clock
  limits?: Partial<LogsLimits & { msgIds: number }>
}

type News =
  | { log: string, epoch: string, entry: LogEntry }
  | { place: string, change: PresenceChange }
  | { from: string, body: string }

const memoryLimits = { ...defaultBrokerLimits, logs: 100_000, totalBytes: 256 * 1024 * 1024, msgIds: 100_000 }

/** Lets peers of one process talk; nothing survives it. */
export class MemoryMessageBroker implements MessageBroker {
  readonly process = randomBytes(9).toString('base64url')
  readonly now: Clock
  readonly #limits: BrokerLimits & { msgIds: number }
  readonly #logs: MemoryLogs
  readonly #places: MemoryPlaces
  readonly #sent: ExpiringMap<LogPosition>
  readonly #followed = new Set<string>()
  readonly #patterns = new PatternTrie<true>()
  readonly #watched = new Set<string>()
  #news: News[] = []
  /** How many of the news were told. */
  #told = 0
  #isTelling = false
  #listener: BrokerListener | undefined

  constructor ({ clock = monotonicClock(), limits }: MemoryMessageBrokerOptions = {}) {
    const all = { ...memoryLimits, ...limits }
    this.now = clock
    this.#limits = all
    this.#logs = new MemoryLogs(clock, all, log => this.#followed.has(log))
    this.#places = new MemoryPlaces(this.process, Math.floor(clock()))
    this.#sent = new ExpiringMap(clock, all.msgIds)
  }

  async open (listener: BrokerListener): Promise<void> {
    this.#listener = listener
  }

  async close (): Promise<void> {
    this.#listener = undefined
    this.#news = []
    this.#told = 0
    this.#places.clear()
    this.#followed.clear()
    this.#watched.clear()
    this.#patterns.clear()
  }

  async append ({ log, msgId, from, data, metadata, origin }: AppendCommand): Promise<Appended> {
    this.#checkOpen()
    const sending = msgId === undefined ? undefined : sendingOf(log, from, msgId)
    const known = sending === undefined ? undefined : this.#sent.get(sending)
    if (known) return { ...known, duplicate: true }
    const { epoch, offset, entry } = this.#logs.append(log, { from, data, metadata, origin, at: this.now() })
    if (sending !== undefined) this.#sent.set(sending, { epoch, offset }, entry.at + this.#limits.msgIdMs)
    if (this.#isHeard(log)) this.#tell({ log, epoch, entry })
    return { epoch, offset, duplicate: false }
  }

  async read (log: string, query: { since?: LogPosition | undefined, limit: number }): Promise<LogPage> {
    this.#checkOpen()
    return this.#logs.read(log, query)
  }

  async follow (log: string): Promise<LogPosition> {
    this.#checkOpen()
    this.#followed.add(log)
    return this.#logs.position(log)
  }

  unfollow (log: string): void {
    this.#followed.delete(log)
  }

  async followPattern (pattern: string): Promise<void> {
    this.#checkOpen()
    this.#patterns.set(pattern, true)
  }

  unfollowPattern (pattern: string): void {
    this.#patterns.delete(pattern)
  }

  async enter (place: string, peerId: string, metadata: string): Promise<void> {
    this.#checkOpen()
    this.#changed(place, this.#places.enter(place, peerId, metadata))
  }

  async leave (place: string, peerId: string): Promise<void> {
    this.#checkOpen()
    this.#changed(place, this.#places.leave(place, peerId))
  }

  async roster (place: string): Promise<Roster> {
    this.#checkOpen()
    return this.#places.roster(place)
  }

  async watch (place: string): Promise<Roster> {
    this.#checkOpen()
    this.#watched.add(place)
    return this.#places.roster(place)
  }

  unwatch (place: string): void {
    this.#watched.delete(place)
  }

  sendToProcess (process: string, body: string): void {
    if (this.#listener && process === this.process) this.#tell({ from: process, body })
  }

  #checkOpen () {
    if (!this.#listener) throw problem('storage-unavailable', 'The broker is not open')
  }

  #isHeard (log: string): boolean {
    if (this.#followed.has(log)) return true
    const channel = channelOf(log)
    return channel !== undefined && this.#patterns.find(channel) !== undefined
  }

  #changed (place: string, change: PresenceChange | undefined) {
    if (change && this.#watched.has(place)) this.#tell({ place, change })
  }

  /** After what is under way: who is told may call the broker, and what comes of that is told last. */
  #tell (news: News) {
    this.#news.push(news)
    if (this.#isTelling) return
    this.#isTelling = true
    queueMicrotask(() => { this.#tellAll() })
  }

  #tellAll () {
    try {
      while (this.#told < this.#news.length) this.#tellOne(this.#news[this.#told++]!)
      this.#news = []
      this.#told = 0
    } finally {
      this.#isTelling = false
    }
  }

  #tellOne (news: News) {
    if ('log' in news) {
      if (this.#isHeard(news.log)) this.#listener?.appended(news.log, news.epoch, news.entry)
    } else if ('place' in news) {
      if (this.#watched.has(news.place)) this.#listener?.presenceChanged(news.place, news.change)
    } else this.#listener?.processMessage(news.from, news.body)
  }
}
