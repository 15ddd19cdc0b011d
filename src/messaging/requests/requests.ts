import { randomUUID } from 'node:crypto'
import { problem, tooMany } from '../../errors.js'
import type { Deadline, Deadlines } from '../../lib/deadlines.js'
import { maxTimeoutMs } from '../../protocol/frames/direct.js'
import { payloadText } from '../../protocol/validation.js'
import type { Replica } from '../../registry/replica.js'
import type { MessageBroker } from '../../storage/message-broker.js'
import { assertMay } from '../access.js'
import type { Peer } from '../peer.js'
import { Candidates } from './candidates.js'
import { newRequest, OpenRequests, type Offer, type OpenRequest, type Reply, type Requester, type RequestInput } from './open-requests.js'
import type { AgentResponse, RequestChannel, ResponderMessage } from './request-channel.js'

export interface RequestsOptions {
  broker: MessageBroker
  channel: RequestChannel
  deadlines: Deadlines
  replica: Replica
  /** The processes to which a peer is connected. */
  processesOf: (peerId: string) => string[]
  maxDataBytes: number
  /** The most open requests of one connection, and of this process. */
  maxPerConnection: number
  maxRequests: number
  /** The time in which an agent has to accept (ms). */
  acceptMs?: number
}

const defaultAcceptMs = 1000
/** The rejection of a request that its own connection cancelled, or left open when it closed. */
const cancelled = Symbol('cancelled')

interface NewRequest extends Pick<OpenRequest, 'from' | 'resolve' | 'reject'> {
  readonly input: RequestInput
  readonly requester?: Requester
}

/** The requests of this process: each is offered to agents until one replies, or until it fails. */
export class Requests {
  readonly #options: RequestsOptions
  readonly #open = new OpenRequests()
  readonly candidates: Candidates

  constructor (options: RequestsOptions) {
    const { channel, broker: { process } } = options
    this.#options = options
    channel.onResponderMessage((from, message, data) => { this.#received(from, message, data) })
    this.candidates = new Candidates({ ...options, process, loadOf: peerId => this.#open.loadOf(peerId) })
  }

  get size () { return this.#open.size }

  /**
   * Sends the request of a connection.
   * @returns undefined when the connection cancelled it or closed
   * @throws insufficient-permissions, and as `ask` does
   */
  async request (requester: Requester, input: RequestInput): Promise<Reply | undefined> {
    const { peer } = requester
    assertMay(peer, 'send')
    try {
      return await new Promise<Reply>((resolve, reject) => { this.#start({ from: peer.peerId, input, requester, resolve, reject }) })
    } catch (error) {
      if (error === cancelled) return undefined
      throw error
    }
  }

  /**
   * Sends a request to a peer, or to the least loaded agent with a capability, without a check of rights.
   * @param signal cancels the request
   * @throws invalid-input, missing-data, request-too-large, quota-exceeded, agent-offline, no-responders,
   * deadline-exceeded, request-rejected, shutting-down; the reason of the signal
   */
  async requestUnchecked (from: string, input: RequestInput, signal?: AbortSignal): Promise<Reply> {
    signal?.throwIfAborted()
    let request: OpenRequest | undefined
    const abort = () => { if (request && this.#open.has(request)) this.#cancel(request, signal?.reason) }
    signal?.addEventListener('abort', abort)
    try {
      return await new Promise<Reply>((resolve, reject) => { request = this.#start({ from, input, resolve, reject }) })
    } finally {
      signal?.removeEventListener('abort', abort)
    }
  }

  /** Cancels a request of a connection, and notifies the agent that has it. @returns whether the request was open */
  cancel (peer: Peer, requestId: string): boolean {
    const request = this.#open.find(peer, requestId)
    if (request) this.#cancel(request, cancelled)
    return request !== undefined
  }

  /** Cancels all requests of a closed connection. */
  removePeer (peer: Peer): void {
    for (const request of this.#open.requestedBy(peer)) this.#cancel(request, cancelled)
  }

  /** Offers the requests of peers that are no longer connected to other agents, or fails them. */
  peersLeft (peerIds: Iterable<string> = this.#open.agents()): void {
    for (const peerId of peerIds) if (this.#options.processesOf(peerId).length === 0) this.#agentLeft(peerId)
  }

  close (): void {
    for (const request of this.#open) this.#cancel(request, problem('shutting-down', 'This server is shutting down'))
  }

  #start ({ from, input: { data, ...target }, requester, resolve, reject }: NewRequest): OpenRequest {
    assertTarget(target)
    const { broker, deadlines, maxDataBytes } = this.#options
    const { timeoutMs, to } = target
    const text = payloadText(data, maxDataBytes)
    this.#assertRoom(requester)
    const request = newRequest({ from, target, data: text, deadline: Math.ceil(broker.now() + timeoutMs), requester, resolve, reject })
    this.#open.add(request)
    request.expiry = deadlines.after(timeoutMs, () => {
      this.#fail(request, problem('deadline-exceeded', `No reply within ${timeoutMs} ms`))
    })
    if (to !== undefined) request.otherProcesses = this.candidates.processesOf(to)
    this.#offerOrFail(request)
    return request
  }

  #assertRoom (requester: Requester | undefined) {
    const { maxPerConnection, maxRequests } = this.#options
    const isFull = this.#open.size >= maxRequests || (requester !== undefined && this.#open.countOf(requester.peer) >= maxPerConnection)
    if (isFull) throw tooMany('quota-exceeded', 'Too many open requests', 1000)
  }

  #offerOrFail (request: OpenRequest) {
    if (this.#offerToNext(request)) return
    const { to, capability } = request.target
    this.#fail(request, to === undefined
      ? problem('no-responders', `No agent with the capability '${capability}' accepts requests`)
      : problem('agent-offline', `'${to}' does not accept requests`))
  }

  /** @returns false when no candidate is left */
  #offerToNext (request: OpenRequest): boolean {
    const next = this.candidates.next(request)
    if (!next) return false
    const { broker, channel, deadlines, acceptMs = defaultAcceptMs } = this.#options
    const rid = `${broker.process}.${randomUUID()}`
    this.#open.setOffer(request, { rid, ...next })
    this.#cancelDeadline(request.acceptance)
    request.acceptance = deadlines.after(acceptMs, () => { this.#notAccepted(request) })
    const { from, deadline, data } = request
    channel.sendToResponder(next.process, { op: 'offer', rid, to: next.peerId, from, deadline }, data)
    return true
  }

  #received (from: string, message: ResponderMessage, data: string) {
    const request = this.#open.withOffer(message.rid)
    if (message.op === 'declined') {
      if (request) this.#offerOrFail(request)
      return
    }
    const counts = request?.offer?.peerId === message.by
    if (request && counts) this.#responded(request, message, data)
    this.#options.channel.sendToResponder(from, { op: 'verdict', id: message.id, counts })
  }

  #responded (request: OpenRequest, response: AgentResponse, data: string) {
    if (response.op === 'accept') {
      request.isAccepted = true
      this.#cancelDeadline(request.acceptance)
    } else if (response.op === 'reply') {
      this.#end(request)
      request.resolve({ from: response.by, data })
    } else this.#fail(request, problem('request-rejected', response.message, { members: { reason: response.code } }))
  }

  /** An agent that does not accept in time keeps the request when no other agent can take it. */
  #notAccepted (request: OpenRequest) {
    if (!mayMove(request)) return
    const { offer } = request
    request.otherProcesses = []
    if (this.#offerToNext(request) && offer) this.#withdraw(offer)
  }

  #agentLeft (peerId: string) {
    for (const request of this.#open.offeredTo(peerId)) {
      const isMoved = !request.isAccepted && mayMove(request) && this.#offerToNext(request)
      if (!isMoved) this.#fail(request, problem('agent-offline', `Agent '${peerId}' disconnected`))
    }
  }

  /** Fails a request and notifies the agent that has it. */
  #cancel (request: OpenRequest, reason: unknown) {
    if (request.offer) this.#withdraw(request.offer)
    this.#fail(request, reason)
  }

  #withdraw ({ process, rid, peerId: to }: Offer) {
    this.#options.channel.sendToResponder(process, { op: 'withdraw', rid, to })
  }

  #fail (request: OpenRequest, error: unknown) {
    this.#end(request)
    request.reject(error)
  }

  #end (request: OpenRequest) {
    this.#open.delete(request)
    this.#cancelDeadline(request.expiry)
    this.#cancelDeadline(request.acceptance)
  }

  #cancelDeadline (deadline: Deadline | null) {
    if (deadline) this.#options.deadlines.cancel(deadline)
  }
}

/** @throws invalid-input */
function assertTarget ({ to, capability, timeoutMs }: OpenRequest['target']) {
  const hasOneTarget = (to === undefined) !== (capability === undefined)
  if (!hasOneTarget) throw problem('invalid-input', 'A request needs either a peer (`to`) or a capability')
  if (!(timeoutMs >= 1 && timeoutMs <= maxTimeoutMs)) throw problem('invalid-input', `timeoutMs must be between 1 and ${maxTimeoutMs}`)
}

/** Whether another agent may be offered the request. */
function mayMove ({ target: { capability, idempotent = true } }: OpenRequest): boolean {
  return capability !== undefined && idempotent
}
