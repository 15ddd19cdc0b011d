import type { Offer, OpenRequest } from './open-request.js'
import type { Peer } from '../peer.js'

/** Requests that began in this process, found by what is said of them. */
export class OpenRequests {
  readonly #all = new Set<OpenRequest>()
  readonly #byRid = new Map<string, OpenRequest>()
  readonly #byAgent = new Map<string, Set<OpenRequest>>()
  readonly #byAsker = new Map<Peer, Map<string, OpenRequest>>()

  get size () { return this.#all.size }

  [Symbol.iterator] () { return [...this.#all].values() }

  has (request: OpenRequest): boolean {
    return this.#all.has(request)
  }

  add (request: OpenRequest): void {
    this.#all.add(request)
    if (!request.asker) return
    const { peer, requestId } = request.asker
    const own = this.#byAsker.get(peer) ?? new Map<string, OpenRequest>()
    this.#byAsker.set(peer, own.set(requestId, request))
  }

  delete (request: OpenRequest): void {
    this.#all.delete(request)
    this.offer(request, null)
    if (!request.asker) return
    const { peer, requestId } = request.asker
    const own = this.#byAsker.get(peer)!
    own.delete(requestId)
    if (own.size === 0) this.#byAsker.delete(peer)
  }

  /** Gives it to somebody else; what the one before says does not count any more. */
  offer (request: OpenRequest, offer: Offer | null): void {
    if (request.offer) this.#take(request, request.offer)
    request.offer = offer
    if (!offer) return
    this.#byRid.set(offer.rid, request)
    const given = this.#byAgent.get(offer.peerId) ?? new Set<OpenRequest>()
    this.#byAgent.set(offer.peerId, given.add(request))
  }

  /** The request of an offer that still stands. */
  of (rid: string): OpenRequest | undefined {
    return this.#byRid.get(rid)
  }

  loadOf (peerId: string): number {
    return this.#byAgent.get(peerId)?.size ?? 0
  }

  /** Those who were given something and have not answered. */
  agents (): string[] {
    return [...this.#byAgent.keys()]
  }

  /** What an agent was given and has not answered. */
  givenTo (peerId: string): OpenRequest[] {
    return [...this.#byAgent.get(peerId) ?? []]
  }

  askedBy (peer: Peer): OpenRequest[] {
    return [...this.#byAsker.get(peer)?.values() ?? []]
  }

  countOf (peer: Peer): number {
    return this.#byAsker.get(peer)?.size ?? 0
  }

  find (peer: Peer, requestId: string): OpenRequest | undefined {
    return this.#byAsker.get(peer)?.get(requestId)
  }

  #take (request: OpenRequest, { rid, peerId }: Offer) {
    this.#byRid.delete(rid)
    const given = this.#byAgent.get(peerId)
    if (given?.delete(request) && given.size === 0) this.#byAgent.delete(peerId)
  }
}
