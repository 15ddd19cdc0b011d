import { Multimap } from '../lib/multimap.js'
import type { Peer } from './peer.js'

/** Who takes part through this process, by whatever connections. */
export class Peers {
  readonly #connections = new Multimap<string, Peer>()

  /** @returns whether it is the first connection of this peer */
  add (peer: Peer): boolean {
    return this.#connections.add(peer.peerId, peer)
  }

  /** @returns whether it was the last connection of this peer */
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
