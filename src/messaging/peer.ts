import type { Principal } from '../protocol/principal.js'
import type { Rights } from '../auth/rights.js'
import { Multimap } from '../lib/multimap.js'
import type { Dialect } from '../protocol/channel-names.js'
import type { EncodedMessage } from '../protocol/encoded-message.js'

/** The sender of a message: a connection, or a caller of the REST API. */
export interface Sender {
  readonly peerId: string
  readonly dialect: Dialect
  readonly rights: Rights
  readonly authenticatedPrincipal: Principal
}

/** A connection that takes part in messaging. A peer may have several. */
export interface Peer extends Sender {
  /** The id of the connection. */
  readonly id: string
  readonly isOpen: boolean
  /** An observer receives messages, but no requests. */
  readonly observes: boolean
  push (message: EncodedMessage): void
  /**
   * Calls back when everything sent so far has left, at the earliest in the next tick. A later call of the same kind
   * replaces an earlier one.
   */
  whenSent (kind: string, callback: () => void): void
}

/** The connections of this process by peer id. */
export class Peers {
  readonly #connections = new Multimap<string, Peer>()

  /** @returns whether this is the first connection of its peer */
  add (peer: Peer): boolean {
    return this.#connections.add(peer.peerId, peer)
  }

  /** @returns whether this was the last connection of its peer */
  delete (peer: Peer): boolean {
    return this.#connections.delete(peer.peerId, peer)
  }

  of (peerId: string): readonly Peer[] {
    return this.#connections.of(peerId)
  }

  all (): Generator<Peer> {
    return this.#connections.values()
  }
}
