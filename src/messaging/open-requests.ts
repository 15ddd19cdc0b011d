import type { Offer, OpenRequest } from './open-request.js'
import type { Peer } from './peer.js'

/** Requests that began in this process, found by what is said of them. */
export class OpenRequests {
  readonly #all = new Set<OpenRequest>()
  readonly #byRid = new Map<string, OpenRequest>()
  readonly #byAgent = new Map<string, Set<OpenRequest>>()
  readonly #byAsker = new Map<Peer, Map<string, OpenRequest>>()

  get size () { return this.#all.size }

  [Symbol.iterator] () { return [...this.#all].values() }

  add (request: OpenRequest): void {
    this.#all.add(request)
    const { asker, requestId } = request
    if (!asker) return
    const own = this.#byAsker.get(asker) ?? new Map<string, OpenRequest>()
    this.#byAsker.set(asker, own.set(requestId, request))
  }

  delete (request: OpenRequest): void {
    this.#all.delete(request)
    this.offer(request, null)
    const { asker, requestId } = request
    const own = asker && this.#byAsker.get(asker)
    if (own?.delete(requestId) && own.size === 0) this.#byAsker.delete(asker!)
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

  askedBy (asker: Peer): OpenRequest[] {
    return [...this.#byAsker.get(asker)?.values() ?? []]
  }

  countOf (asker: Peer): number {
    return this.#byAsker.get(asker)?.size ?? 0
  }

  find (asker: Peer, requestId: string): OpenRequest | undefined {
    return this.#byAsker.get(asker)?.get(requestId)
  }

  #take (request: OpenRequest, { rid, peerId }: Offer) {
    this.#byRid.delete(rid)
    const given = this.#byAgent.get(peerId)
    if (given?.delete(request) && given.size === 0) this.#byAgent.delete(peerId)
  }
}
