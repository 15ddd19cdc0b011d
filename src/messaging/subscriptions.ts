import type { MessageBroker, LogEntry, LogPosition } from '../storage/message-broker.js'
import { Delivery } from './delivery.js'
import { nameOfChannel } from '../storage/message-broker.js'
import { PatternTrie } from '../lib/pattern-trie.js'
import { Subscription, type Subscriber } from './subscription.js'

const nobody: ReadonlyMap<object, Subscriber> = new Map()

/** Who hears of what in this process; the broker is told what that takes. */
export class Subscriptions {
  readonly #broker: MessageBroker
  readonly #named = new Map<string, Map<object, Subscriber>>()
  readonly #patterns = new PatternTrie<Set<Subscriber>>()

  constructor (broker: MessageBroker) {
    this.#broker = broker
  }

  /** @throws storage-unavailable; the subscriber has to be deleted then too */
  add (channel: string, subscriber: Subscriber): Promise<LogPosition> {
    const known = this.#named.get(channel) ?? new Map<object, Subscriber>()
    this.#named.set(channel, known.set(subscriber.owner, subscriber))
    return this.#broker.follow(nameOfChannel(channel))
  }

  delete (channel: string, { owner }: Subscriber): void {
    const known = this.#named.get(channel)
    if (!known?.delete(owner) || known.size > 0) return
    this.#named.delete(channel)
    this.#broker.unfollow(nameOfChannel(channel))
  }

  /** @throws storage-unavailable; the subscriber has to be deleted then too */
  addPattern (pattern: string, subscriber: Subscriber): Promise<void> {
    const known = this.#patterns.get(pattern)
    if (known) known.add(subscriber)
    else this.#patterns.set(pattern, new Set([subscriber]))
    return this.#broker.followPattern(pattern)
  }

  deletePattern (pattern: string, subscriber: Subscriber): void {
    const known = this.#patterns.get(pattern)
    if (!known?.delete(subscriber) || known.size > 0) return
    this.#patterns.delete(pattern)
    this.#broker.unfollowPattern(pattern)
  }

  appended (channel: string, epoch: string, entry: LogEntry): void {
    const delivery = new Delivery(channel, epoch, entry)
    const named = this.#named.get(channel) ?? nobody
    for (const subscriber of named.values()) subscriber.tell(delivery)
    for (const subscriber of this.#byPattern(channel)) {
      const other = named.get(subscriber.owner)
      if (isSole(other)) continue
      subscriber.tell(delivery)
      if (other instanceof Subscription) other.share(delivery)
    }
  }

  lost (channel: string, position: LogPosition): void {
    const named = this.#named.get(channel) ?? nobody
    for (const subscriber of named.values()) subscriber.lost(channel, position)
    for (const subscriber of this.#byPattern(channel)) if (!isSole(named.get(subscriber.owner))) subscriber.lost(channel, position)
  }

  /** Each owner once, however many of its patterns match. */
  * #byPattern (channel: string): Generator<Subscriber> {
    const sets = this.#patterns.match(channel)
    if (sets.length === 0) return
    const seen = new Set<object>()
    for (const subscribers of sets) {
      for (const subscriber of subscribers) {
        if (sets.length > 1 && seen.has(subscriber.owner)) continue
        if (sets.length > 1) seen.add(subscriber.owner)
        yield subscriber
      }
    }
  }
}

function isSole (subscriber: Subscriber | undefined): boolean {
  return subscriber instanceof Subscription ? subscriber.isSole : subscriber !== undefined
}
