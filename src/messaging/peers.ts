import type { Peer } from './peer.js'

const none: ReadonlySet<Peer> = new Set()

/** Who takes part through this process, by whatever connections. */
export class Peers {
  readonly #connections = new Map<string, Set<Peer>>()

  /** @returns whether it is the first connection of this peer */
  add (peer: Peer): boolean {
    const known = this.#connections.get(peer.peerId)
    if (known) known.add(peer)
    else this.#connections.set(peer.peerId, new Set([peer]))
    return known === undefined
  }

  /** @returns whether it was the last connection of this peer */
  delete (peer: Peer): boolean {
    const known = this.#connections.get(peer.peerId)
    if (!known?.delete(peer) || known.size > 0) return false
    return this.#connections.delete(peer.peerId)
  }

  of (peerId: string): ReadonlySet<Peer> {
    return this.#connections.get(peerId) ?? none
  }

  * all (): Generator<Peer> {
    for (const connections of this.#connections.values()) yield * connections
  }
}
