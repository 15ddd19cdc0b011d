import { randomBytes } from 'node:crypto'
import { problem } from '../../errors.js'
import { monotonicClock, type Clock } from '../../lib/clock.js'
import { ExpiringMap } from '../../lib/expiring-map.js'
import { PatternTrie } from '../../lib/pattern-trie.js'
import { channelOfKey } from '../../protocol/channel-names.js'
import {
  defaultBrokerLimits, messageKey, type AppendCommand, type Appended, type BrokerLimits, type BrokerListener, type LogEntry,
  type LogPage, type LogPosition, type MessageBroker, type PresenceChange, type PresenceMember, type Roster
} from '../message-broker.js'
import { MemoryLogs, type LogsLimits } from './message-logs.js'

/** Presence sets of one process: a peer enters or leaves a set as a whole. */
class MemoryPresenceSets {
  readonly #process: string
  readonly #sets = new Map<string, Map<string, string>>()
  #revision: number

  /** @param revision the first change has a greater revision */
  constructor (process: string, revision: number) {
    this.#process = process
    this.#revision = revision
  }

  enter (set: string, peerId: string, metadata: string): PresenceChange {
    const peers = this.#sets.get(set) ?? new Map<string, string>()
    const isWhole = !peers.has(peerId)
    peers.set(peerId, metadata)
    this.#sets.set(set, peers)
    return { op: isWhole ? 'enter' : 'update', isWhole, revision: ++this.#revision, ...this.#member(peerId, metadata) }
  }

  /** @returns undefined when the peer was not in the set */
  leave (set: string, peerId: string): PresenceChange | undefined {
    const peers = this.#sets.get(set)
    const metadata = peers?.get(peerId)
    if (!peers || metadata === undefined) return undefined
    peers.delete(peerId)
    if (peers.size === 0) this.#sets.delete(set)
    return { op: 'leave', isWhole: true, revision: ++this.#revision, ...this.#member(peerId, metadata) }
  }

  roster (set: string): Roster {
    const members = Array.from(this.#sets.get(set) ?? [], ([peerId, metadata]) => this.#member(peerId, metadata))
    return { revision: this.#revision, members }
  }

  clear (): void {
    this.#sets.clear()
  }

  #member (peerId: string, metadata: string): PresenceMember {
    return { peerId, process: this.#process, metadata }
  }
}

export interface MemoryMessageBrokerOptions {
  clock?: Clock
  limits?: Partial<LogsLimits & { msgIds: number }>
}

type BrokerEvent =
  | { log: string, epoch: string, entry: LogEntry }
  | { set: string, change: PresenceChange }
  | { from: string, body: string }

const memoryLimits = { ...defaultBrokerLimits, logs: 100_000, totalBytes: 256 * 1024 * 1024, msgIds: 100_000 }

/** Connects the peers of one process. */
export class MemoryMessageBroker implements MessageBroker {
  readonly process = randomBytes(9).toString('base64url')
  readonly now: Clock
  readonly #limits: BrokerLimits & { msgIds: number }
  readonly #logs: MemoryLogs
  readonly #sets: MemoryPresenceSets
  /** Positions by message key, to detect duplicates. */
  readonly #sent: ExpiringMap<LogPosition>
  readonly #followed = new Set<string>()
  readonly #patterns = new PatternTrie<true>()
  readonly #watched = new Set<string>()
  #events: BrokerEvent[] = []
  /** The number of `#events` that are delivered. */
  #delivered = 0
  #isDelivering = false
  #listener: BrokerListener | undefined

  constructor ({ clock = monotonicClock(), limits }: MemoryMessageBrokerOptions = {}) {
    const allLimits = { ...memoryLimits, ...limits }
    this.now = clock
    this.#limits = allLimits
    this.#logs = new MemoryLogs(clock, allLimits, log => this.#followed.has(log))
    this.#sets = new MemoryPresenceSets(this.process, Math.floor(clock()))
    this.#sent = new ExpiringMap(clock, allLimits.msgIds)
  }

  async open (listener: BrokerListener): Promise<void> {
    this.#listener = listener
  }

  async close (): Promise<void> {
    this.#listener = undefined
    this.#events = []
    this.#delivered = 0
    this.#sets.clear()
    this.#followed.clear()
    this.#watched.clear()
    this.#patterns.clear()
  }

  async append ({ log, msgId, from, data, metadata, origin }: AppendCommand): Promise<Appended> {
    this.#checkOpen()
    const key = msgId === undefined ? undefined : messageKey(log, from, msgId)
    const known = key === undefined ? undefined : this.#sent.get(key)
    if (known) return { ...known, duplicate: true }
    const { epoch, offset, entry } = this.#logs.append(log, { from, data, metadata, origin, at: this.now() })
    if (key !== undefined) this.#sent.set(key, { epoch, offset }, entry.at + this.#limits.msgIdMs)
    if (this.#isFollowed(log)) this.#emit({ log, epoch, entry })
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

  async enter (set: string, peerId: string, metadata: string): Promise<void> {
    this.#checkOpen()
    this.#presenceChanged(set, this.#sets.enter(set, peerId, metadata))
  }

  async leave (set: string, peerId: string): Promise<void> {
    this.#checkOpen()
    this.#presenceChanged(set, this.#sets.leave(set, peerId))
  }

  async roster (set: string): Promise<Roster> {
    this.#checkOpen()
    return this.#sets.roster(set)
  }

  async watch (set: string): Promise<Roster> {
    this.#checkOpen()
    this.#watched.add(set)
    return this.#sets.roster(set)
  }

  unwatch (set: string): void {
    this.#watched.delete(set)
  }

  sendToProcess (process: string, body: string): void {
    if (this.#listener && process === this.process) this.#emit({ from: process, body })
  }

  #checkOpen () {
    if (!this.#listener) throw problem('storage-unavailable', 'The broker is not open')
  }

  #isFollowed (log: string): boolean {
    if (this.#followed.has(log)) return true
    const channel = channelOfKey(log)
    return channel !== undefined && this.#patterns.find(channel) !== undefined
  }

  #presenceChanged (set: string, change: PresenceChange | undefined) {
    if (change && this.#watched.has(set)) this.#emit({ set, change })
  }

  /** Queues an event behind those in progress: a listener may call the broker, and the resulting events come last. */
  #emit (event: BrokerEvent) {
    this.#events.push(event)
    if (this.#isDelivering) return
    this.#isDelivering = true
    queueMicrotask(() => { this.#deliverAll() })
  }

  #deliverAll () {
    try {
      for (let event = this.#events[this.#delivered]; event; event = this.#events[this.#delivered]) {
        this.#delivered++
        this.#deliver(event)
      }
      this.#events = []
      this.#delivered = 0
    } finally {
      this.#isDelivering = false
    }
  }

  #deliver (event: BrokerEvent) {
    if ('log' in event) {
      if (this.#isFollowed(event.log)) this.#listener?.appended(event.log, event.epoch, event.entry)
    } else if ('set' in event) {
      if (this.#watched.has(event.set)) this.#listener?.presenceChanged(event.set, event.change)
    } else this.#listener?.processMessage(event.from, event.body)
  }
}
