import type { Deadline } from '../../lib/deadlines.js'
import type { Peer } from '../peer.js'

/** A request to one peer (`to`), or to any agent with a capability. */
export interface RequestInput {
  readonly to?: string | undefined
  readonly capability?: string | undefined
  readonly data: unknown
  readonly timeoutMs: number
  /** Whether another agent may be asked when the first does not accept in time; default: true. */
  readonly idempotent?: boolean | undefined
}

/** The connection that sent a request, and its id for the request. */
export interface Requester { readonly peer: Peer, readonly requestId: string }

/** `data` is JSON text. */
export interface Reply { readonly from: string, readonly data: string }

/** A request as it was offered to an agent, through one of the processes to which the agent is connected. */
export interface Offer { readonly rid: string, readonly peerId: string, readonly process: string }

interface RequestState {
  readonly from: string
  readonly target: Omit<RequestInput, 'data'>
  /** JSON text. */
  readonly data: string
  /** Epoch milliseconds. */
  readonly deadline: number
  /** The connection that sent it; undefined for a request over HTTP or by the host. */
  readonly requester: Requester | undefined
  readonly resolve: (reply: Reply) => void
  readonly reject: (error: unknown) => void
}

/** A request without a reply. */
export interface OpenRequest extends RequestState {
  /** Agents that were offered the request. */
  readonly tried: Set<string>
  /** Other processes to which the current agent is connected. */
  otherProcesses: string[]
  offer: Offer | null
  isAccepted: boolean
  expiry: Deadline | null
  acceptance: Deadline | null
}

export function newRequest ({ from, target, data, deadline, requester, resolve, reject }: RequestState): OpenRequest {
  // Each member is written out: with so many members an object spread takes a hundred times as long.
  return {
    from,
    target,
    data,
    deadline,
    requester,
    resolve,
    reject,
    tried: new Set(),
    otherProcesses: [],
    offer: null,
    isAccepted: false,
    expiry: null,
    acceptance: null
  }
}

/** The open requests of this process, indexed by offer, agent and requester. */
export class OpenRequests {
  readonly #all = new Set<OpenRequest>()
  readonly #byRid = new Map<string, OpenRequest>()
  readonly #byAgent = new Map<string, Set<OpenRequest>>()
  readonly #byRequester = new Map<Peer, Map<string, OpenRequest>>()

  get size () { return this.#all.size }

  [Symbol.iterator] () { return [...this.#all].values() }

  has (request: OpenRequest): boolean {
    return this.#all.has(request)
  }

  add (request: OpenRequest): void {
    this.#all.add(request)
    if (!request.requester) return
    const { peer, requestId } = request.requester
    const own = this.#byRequester.get(peer) ?? new Map<string, OpenRequest>()
    this.#byRequester.set(peer, own.set(requestId, request))
  }

  delete (request: OpenRequest): void {
    this.#all.delete(request)
    this.setOffer(request, null)
    if (!request.requester) return
    const { peer, requestId } = request.requester
    const own = this.#byRequester.get(peer)
    if (own?.delete(requestId) && own.size === 0) this.#byRequester.delete(peer)
  }

  /** Replaces the offer of a request: responses to the previous one no longer count. */
  setOffer (request: OpenRequest, offer: Offer | null): void {
    if (request.offer) this.#deleteOffer(request, request.offer)
    request.offer = offer
    if (!offer) return
    this.#byRid.set(offer.rid, request)
    const offered = this.#byAgent.get(offer.peerId) ?? new Set<OpenRequest>()
    this.#byAgent.set(offer.peerId, offered.add(request))
  }

  /** The request that an offer belongs to, while that offer is the current one. */
  withOffer (rid: string): OpenRequest | undefined {
    return this.#byRid.get(rid)
  }

  /** The number of requests that an agent has. */
  loadOf (peerId: string): number {
    return this.#byAgent.get(peerId)?.size ?? 0
  }

  /** The agents that have requests. */
  agents (): string[] {
    return [...this.#byAgent.keys()]
  }

  /** The requests that an agent has. */
  offeredTo (peerId: string): OpenRequest[] {
    return [...this.#byAgent.get(peerId) ?? []]
  }

  /** The requests of a connection. */
  requestedBy (peer: Peer): OpenRequest[] {
    return [...this.#byRequester.get(peer)?.values() ?? []]
  }

  countOf (peer: Peer): number {
    return this.#byRequester.get(peer)?.size ?? 0
  }

  find (peer: Peer, requestId: string): OpenRequest | undefined {
    return this.#byRequester.get(peer)?.get(requestId)
  }

  #deleteOffer (request: OpenRequest, { rid, peerId }: Offer) {
    this.#byRid.delete(rid)
    const offered = this.#byAgent.get(peerId)
    if (offered?.delete(request) && offered.size === 0) this.#byAgent.delete(peerId)
  }
}
