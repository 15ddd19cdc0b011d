import { problem } from '../errors.js'
import { matchesPattern } from '../lib/pattern-trie.js'
import type { Peer } from './peer.js'
import type { PatternSubscription, Subscription } from './subscription.js'

/** What one connection is subscribed to. */
export class Holding {
  readonly channels = new Map<string, Subscription>()
  readonly patterns = new Map<string, PatternSubscription>()
  /** It sees who takes part. */
  seesTier = false

  get size () { return this.channels.size + this.patterns.size + Number(this.seesTier) }

  /** Whether a pattern of it tells the connection of a channel already. */
  hears (channel: string): boolean {
    for (const [pattern, { isOpen }] of this.patterns) if (isOpen && matchesPattern(pattern, channel)) return true
    return false
  }
}

/** What the connections of this process are subscribed to. */
export class Holdings {
  readonly #byPeer = new Map<Peer, Holding>()
  readonly #limit: number

  /** @param limit subscriptions of a connection */
  constructor (limit: number) {
    this.#limit = limit
  }

  of (peer: Peer): Holding | undefined {
    return this.#byPeer.get(peer)
  }

  /** For one subscription more. @throws channel-limit-exceeded */
  roomOf (peer: Peer): Holding {
    const holding = this.#byPeer.get(peer) ?? new Holding()
    if (holding.size >= this.#limit) throw problem('channel-limit-exceeded', `A connection has at most ${this.#limit} subscriptions`)
    this.#byPeer.set(peer, holding)
    return holding
  }

  delete (peer: Peer): void {
    this.#byPeer.delete(peer)
  }
}
