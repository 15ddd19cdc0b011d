import { randomUUID } from 'node:crypto'
import { problem, tooMany } from '../../errors.js'
import type { Replica } from '../../registry/replica.js'
import { maxTimeoutMs } from '../../protocol/frames/direct.js'
import type { MessageBroker } from '../../storage/message-broker.js'
import { Candidates } from './candidates.js'
import type { Deadline, Deadlines } from '../../lib/deadlines.js'
import { newRequest, type Asker, type Offer, type OpenRequest, type Reply, type RequestOrder } from './open-request.js'
import { OpenRequests } from './open-requests.js'
import { payloadText } from '../../protocol/payload.js'
import type { Peer, Sender } from '../peer.js'
import type { Answer, RequestLine, Word } from './request-channel.js'
import { assertMay } from '../access.js'

export interface RequestsOptions {
  broker: MessageBroker
  line: RequestLine
  deadlines: Deadlines
  replica: Replica
  /** Processes through which a peer is connected. */
  processesOf: (peerId: string) => string[]
  maxDataBytes: number
  /** Requests without an answer, of one connection and of this process. */
  maxPerConnection: number
  maxRequests: number
  /** Time in which an agent has to accept (ms). */
  acceptMs?: number
}

const usualAcceptMs = 1000

/** Requests that began in this process: to whom they are given, and how each of them ends. */
export class Requests {
  readonly #options: RequestsOptions
  readonly #open = new OpenRequests()
  readonly candidates: Candidates

  constructor (options: RequestsOptions) {
    const { line, broker: { process } } = options
    this.#options = options
    line.onWord((from, word, data) => { this.#hear(from, word, data) })
    this.candidates = new Candidates({ ...options, process, loadOf: peerId => this.#open.loadOf(peerId) })
  }

  get size () { return this.#open.size }

  /** @throws insufficient-permissions, and as `ask` */
  async request (sender: Sender, order: RequestOrder, asker?: Asker): Promise<Reply | undefined> {
    assertMay(sender, 'send')
    return this.ask(sender.peerId, order, { asker })
  }

  /**
   * Asks a peer, or an agent that can do something, and resolves with its reply; with nothing when that was cancelled.
   * @throws invalid-input, missing-data, request-too-large, quota-exceeded, agent-offline, no-responders,
   * deadline-exceeded, request-rejected, shutting-down; why the signal was aborted
   */
  async ask (from: string, { data, ...order }: RequestOrder, { asker, signal }: { asker?: Asker | undefined, signal?: AbortSignal | undefined } = {}): Promise<Reply | undefined> {
    assertOrder(order)
    const text = payloadText(data, this.#options.maxDataBytes)
    this.#checkRoom(asker)
    signal?.throwIfAborted()
    const request = newRequest(from, order, { data: text, deadline: Math.ceil(this.#options.broker.now() + order.timeoutMs), asker })
    const abort = () => { if (this.#open.has(request)) this.#cancel(request, () => { request.reject(signal!.reason) }) }
    signal?.addEventListener('abort', abort)
    this.#begin(request)
    return request.answer.finally(() => signal?.removeEventListener('abort', abort))
  }

  /** The agent that has it is told. @returns whether there was such a request */
  cancel (peer: Peer, requestId: string): boolean {
    const request = this.#open.find(peer, requestId)
    if (request) this.#cancel(request, () => { request.resolve() })
    return request !== undefined
  }

  /** A connection is gone: nobody waits for what it asked. */
  leave (peer: Peer): void {
    for (const request of this.#open.askedBy(peer)) this.#cancel(request, () => { request.resolve() })
  }

  /** Peers have gone, any of them perhaps: what those were given who are connected nowhere goes to others, or fails. */
  left (peerIds: Iterable<string> = this.#open.agents()): void {
    for (const peerId of peerIds) if (this.#options.processesOf(peerId).length === 0) this.#gone(peerId)
  }

  /** Everybody who waits is told. */
  close (): void {
    for (const request of this.#open) this.#cancel(request, () => { request.reject(problem('shutting-down', 'This server is going away')) })
  }

  #checkRoom (asker: Asker | undefined) {
    const { maxPerConnection, maxRequests } = this.#options
    const isFull = this.#open.size >= maxRequests || (asker !== undefined && this.#open.countOf(asker.peer) >= maxPerConnection)
    if (isFull) throw tooMany('quota-exceeded', 'Too many requests wait for their answers', 1000)
  }

  #begin (request: OpenRequest) {
    this.#open.add(request)
    const { order: { to, timeoutMs } } = request
    request.expiry = this.#options.deadlines.after(timeoutMs, () => {
      this.#fail(request, problem('deadline-exceeded', `There was no reply within ${timeoutMs} ms`))
    })
    if (to !== undefined) request.places = this.candidates.placesOf(to)
    this.#offerOrFail(request)
  }

  #offerOrFail (request: OpenRequest) {
    if (this.#offerNext(request)) return
    const { to, capability } = request.order
    this.#fail(request, to === undefined ? problem('no-responders', `No agent takes requests for '${capability}' now`) : problem('agent-offline', `'${to}' takes no requests now`))
  }

  /** @returns whether there was somebody left to be asked */
  #offerNext (request: OpenRequest): boolean {
    const next = this.candidates.nextFor(request)
    if (!next) return false
    const { broker, line, deadlines, acceptMs = usualAcceptMs } = this.#options
    const rid = `${broker.process}.${randomUUID()}`
    this.#open.offer(request, { rid, ...next })
    this.#cancelTimer(request.acceptance)
    request.acceptance = deadlines.after(acceptMs, () => { this.#notAccepted(request) })
    const { from, deadline, data } = request
    line.ask(next.process, { op: 'offer', rid, to: next.peerId, from, deadline }, data)
    return true
  }

  #hear (from: string, word: Word, data: string) {
    if (word.op === 'declined') return this.#declined(word.rid)
    const request = this.#open.of(word.rid)
    const counts = request?.offer?.peerId === word.by
    if (counts) this.#answered(request, word, data)
    this.#options.line.ask(from, { op: 'verdict', answer: word.answer, counts })
  }

  #gone (peerId: string) {
    for (const request of this.#open.givenTo(peerId)) {
      const isMoved = !request.isAccepted && mayMove(request) && this.#offerNext(request)
      if (!isMoved) this.#fail(request, problem('agent-offline', `Agent '${peerId}' has gone`))
    }
  }

  #declined (rid: string) {
    const request = this.#open.of(rid)
    if (request) this.#offerOrFail(request)
  }

  #answered (request: OpenRequest, answer: Answer, data: string) {
    if (answer.op === 'accept') {
      request.isAccepted = true
      this.#cancelTimer(request.acceptance)
    } else if (answer.op === 'reply') this.#end(request, () => { request.resolve({ from: answer.by, data }) })
    else this.#fail(request, problem('request-rejected', answer.message, { members: { reason: answer.code } }))
  }

  /** An agent that does not accept keeps the request where nobody else may have it. */
  #notAccepted (request: OpenRequest) {
    if (!mayMove(request)) return
    const { offer } = request
    request.places = []
    if (this.#offerNext(request)) this.#withdraw(offer!)
  }

  #cancel (request: OpenRequest, settle: () => void) {
    this.#withdraw(request.offer!)
    this.#end(request, settle)
  }

  #withdraw ({ process, rid, peerId: to }: Offer) {
    this.#options.line.ask(process, { op: 'withdraw', rid, to })
  }

  #fail (request: OpenRequest, error: Error) {
    this.#end(request, () => { request.reject(error) })
  }

  #end (request: OpenRequest, settle: () => void) {
    this.#open.delete(request)
    this.#cancelTimer(request.expiry)
    this.#cancelTimer(request.acceptance)
    settle()
  }

  #cancelTimer (deadline: Deadline | null) {
    if (deadline) this.#options.deadlines.cancel(deadline)
  }
}

/** @throws invalid-input */
function assertOrder ({ to, capability, timeoutMs }: OpenRequest['order']) {
  if ((to === undefined) === (capability === undefined)) throw problem('invalid-input', 'A request goes to a peer or to a capability: one of them')
  if (!(timeoutMs >= 1 && timeoutMs <= maxTimeoutMs)) throw problem('invalid-input', `A request waits for 1 to ${maxTimeoutMs} ms`)
}

/** Whether another agent may get it instead. */
function mayMove ({ order: { capability, idempotent = true } }: OpenRequest): boolean {
  return capability !== undefined && idempotent
}
