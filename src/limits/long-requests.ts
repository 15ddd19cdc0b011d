import { setTimeout as delay } from 'node:timers/promises'
import { addressKey } from '../lib/address.js'
import type { Principal } from '../auth/principal.js'
import { problem } from '../errors.js'
import { jittered, retryAfter } from '../lib/jitter.js'

/** A request that lasts: a stream, or a poll that waits. */
export interface Visitor {
  readonly principal: Principal
  readonly address: string
  /** The right to be here has ended. */
  end (reason: string): void
  /** The server goes down: come back after `retryAfterMs`. */
  goAway (retryAfterMs: number): void
  /** @param now epoch milliseconds */
  tick (now: number): void
  /** Goes at once, said or not. */
  cut (): void
}

export interface VisitorLimits { maxStreams: number, maxStreamsPerCaller: number, maxStreamsPerAddress: number }

/** Fewer than fill the time over which they are spread go sooner. */
const msPerVisitor = 10
const fullRetryMs = 5_000

/** All requests that last: how many there may be, when their right to be here ends, and how they all go. */
export class Visitors {
  readonly #limits: VisitorLimits
  readonly #visitors = new Set<Visitor>()
  readonly #counts = new Map<string, number>()
  #isDraining = false

  constructor (limits: VisitorLimits) {
    this.#limits = limits
  }

  get size (): number { return this.#visitors.size }

  /** @throws too-many-connections, shutting-down */
  assertRoom (principal: Principal, address: string): void {
    if (this.#isDraining) throw problem('shutting-down', 'Shutting down', retryAfter(jittered(fullRetryMs, 0.5)))
    const { maxStreams, maxStreamsPerCaller, maxStreamsPerAddress } = this.#limits
    const [caller, from] = keysOf({ principal, address }).map(key => this.#counts.get(key) ?? 0) as [number, number]
    if (this.size < maxStreams && caller < maxStreamsPerCaller && from < maxStreamsPerAddress) return
    throw problem('too-many-connections', 'Too many streams and polls', retryAfter(jittered(fullRetryMs, 0.5)))
  }

  add (visitor: Visitor): void {
    this.#visitors.add(visitor)
    for (const key of keysOf(visitor)) this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1)
  }

  delete (visitor: Visitor): void {
    if (!this.#visitors.delete(visitor)) return
    for (const key of keysOf(visitor)) {
      const count = this.#counts.get(key)! - 1
      if (count > 0) this.#counts.set(key, count)
      else this.#counts.delete(key)
    }
  }

  /** Ends every visit of a principal that `ends` says yes to. */
  endWhere (ends: (principal: Principal) => boolean, reason: string): void {
    for (const visitor of this.#visitors) if (ends(visitor.principal)) visitor.end(reason)
  }

  /** @param now epoch milliseconds */
  tick (now: number): void {
    for (const visitor of this.#visitors) {
      const { expiresAt } = visitor.principal
      if (expiresAt !== null && now >= expiresAt * 1000) visitor.end('Token expired')
      else visitor.tick(now)
    }
  }

  /** Sends everybody away, each with another time to come back after; whoever is still there after `ms` is cut off. */
  async drain (ms: number): Promise<void> {
    this.#isDraining = true
    const visitors = [...this.#visitors]
    const spread = Math.min(ms, visitors.length * msPerVisitor)
    for (const [index, visitor] of visitors.entries()) visitor.goAway(Math.floor(spread * (index + Math.random()) / visitors.length))
    const deadline = performance.now() + ms
    while (this.size > 0 && performance.now() < deadline) await delay(10)
    for (const visitor of this.#visitors) visitor.cut()
  }
}

const keysOf = ({ principal, address }: Pick<Visitor, 'principal' | 'address'>) => [`subject ${principal.role} ${principal.subject}`, `address ${addressKey(address)}`]
