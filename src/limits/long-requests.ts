import { setTimeout as delay } from 'node:timers/promises'
import { problem, retryAfter } from '../errors.js'
import { addressKey } from '../lib/address.js'
import { jittered } from '../lib/jitter.js'
import { Multiset } from '../lib/multiset.js'
import type { Principal } from '../protocol/principal.js'

/** A request that stays open: an event stream, or a poll that waits. */
export interface LongRequest {
  readonly principal: Principal
  readonly address: string
  /** Ends the request because its principal lost the right to it. */
  end (reason: string): void
  /** Ends the request because the server shuts down. The client should retry after `retryAfterMs`. */
  announceShutdown (retryAfterMs: number): void
  /** @param now epoch milliseconds */
  tick (now: number): void
  /** Ends the request at once, without a last message. */
  abort (): void
}

interface LongRequestLimits { maxStreams: number, maxStreamsPerCaller: number, maxStreamsPerAddress: number }

/** A drain spreads its requests over at least this time each, if the drain period is long enough. */
const drainMsPerRequest = 10
const retryMs = 5_000

function keysOf ({ role, subject }: Principal, address: string) {
  return { caller: `subject ${role} ${subject}`, address: `address ${addressKey(address)}` }
}

/** All open long requests: limits their number, ends them when their principal expires, and drains them on shutdown. */
export class LongRequests {
  readonly #limits: LongRequestLimits
  readonly #requests = new Set<LongRequest>()
  readonly #counts = new Multiset()
  #isDraining = false

  constructor (limits: LongRequestLimits) {
    this.#limits = limits
  }

  get size (): number { return this.#requests.size }

  /** @throws too-many-connections, shutting-down */
  assertRoom (principal: Principal, address: string): void {
    if (this.#isDraining) throw problem('shutting-down', 'Shutting down', retryAfter(jittered(retryMs, 0.5)))
    const { maxStreams, maxStreamsPerCaller, maxStreamsPerAddress } = this.#limits
    const keys = keysOf(principal, address)
    const hasRoom = this.size < maxStreams && this.#counts.count(keys.caller) < maxStreamsPerCaller &&
      this.#counts.count(keys.address) < maxStreamsPerAddress
    if (!hasRoom) throw problem('too-many-connections', 'Too many streams and polls', retryAfter(jittered(retryMs, 0.5)))
  }

  add (request: LongRequest): void {
    const keys = keysOf(request.principal, request.address)
    this.#requests.add(request)
    this.#counts.add(keys.caller)
    this.#counts.add(keys.address)
  }

  delete (request: LongRequest): void {
    if (!this.#requests.delete(request)) return
    const keys = keysOf(request.principal, request.address)
    this.#counts.delete(keys.caller)
    this.#counts.delete(keys.address)
  }

  /** Ends every request whose principal matches. */
  endWhere (matches: (principal: Principal) => boolean, reason: string): void {
    for (const request of this.#requests) if (matches(request.principal)) request.end(reason)
  }

  /** @param now epoch milliseconds */
  tick (now: number): void {
    for (const request of this.#requests) {
      const { expiresAt } = request.principal
      if (expiresAt !== null && now >= expiresAt * 1000) request.end('Token expired')
      else request.tick(now)
    }
  }

  /** Announces the shutdown to every request, each with another retry time. Requests still open after `ms` are aborted. */
  async drain (ms: number): Promise<void> {
    this.#isDraining = true
    const requests = [...this.#requests]
    const spreadMs = Math.min(ms, requests.length * drainMsPerRequest)
    for (const [index, request] of requests.entries()) {
      request.announceShutdown(Math.floor(spreadMs * (index + Math.random()) / requests.length))
    }
    const deadline = performance.now() + ms
    while (this.size > 0 && performance.now() < deadline) await delay(10)
    for (const request of this.#requests) request.abort()
  }
}
