import { Readable } from 'node:stream'
import type { Principal } from '../auth/principal.js'
import { jittered } from '../lib/jitter.js'
import type { Cursor } from '../registry/feed/cursor.js'
import { ended, goingAway, keepAlive, opening } from '../registry/feed/delta.js'
import type { Follower, Readers } from '../registry/feed/subscribers.js'
import type { Visitor, Visitors } from '../limits/long-requests.js'

const retryMs = 2_000

export interface EventStreamOptions {
  cursor: Cursor<Buffer>
  /** Where the stream starts; null when it starts with a snapshot. */
  revision: string | null
  readers: Readers
  visitors: Visitors
  principal: Principal
  address: string
  keepAliveMs: number
}

/**
 * The feed as Server-Sent Events. It makes nothing until what it has made is taken: one piece is on its way at a time,
 * and a reader that takes nothing for two keep-alives is cut off.
 */
export class EventStream extends Readable implements Follower<Buffer>, Visitor {
  readonly cursor: Cursor<Buffer>
  readonly principal: Principal
  readonly address: string
  readonly #readers: Readers
  readonly #visitors: Visitors
  readonly #keepAliveMs: number
  /** What is said before anything of the feed; null is the end. */
  readonly #first: Array<Buffer | null>
  #isWanted = false
  /** When something went out last, by the clock of `tick`. */
  #movedAt: number | undefined

  constructor ({ cursor, revision, readers, visitors, principal, address, keepAliveMs }: EventStreamOptions) {
    // Whatever is pushed fills it: the next is asked for when that has left.
    super({ highWaterMark: 1 })
    this.cursor = cursor
    this.principal = principal
    this.address = address
    this.#readers = readers
    this.#visitors = visitors
    this.#keepAliveMs = keepAliveMs
    this.#first = [opening(Math.round(jittered(retryMs, 0.5)), revision)]
    readers.add(this)
    visitors.add(this)
  }

  get place () { return this.cursor.place }

  override _read (): void {
    this.#isWanted = true
    this.pump()
  }

  override _destroy (error: Error | null, done: (error?: Error | null) => void): void {
    this.#readers.delete(this)
    this.#visitors.delete(this)
    done(error)
  }

  pump (): void {
    if (!this.#isWanted || this.destroyed) return
    const first = this.#first.shift()
    const next = first === undefined ? this.cursor.next() : first
    if (next === null && first === undefined) this.#readers.park(this)
    else this.#pass(next)
  }

  tell (bookmark: Buffer): void {
    if (this.#isWanted) this.#pass(bookmark)
  }

  tick (now: number): void {
    this.#movedAt ??= now
    const silence = now - this.#movedAt
    if (this.#isWanted && silence >= this.#keepAliveMs) this.#pass(keepAlive)
    else if (silence >= 2 * this.#keepAliveMs) this.cut()
  }

  end (reason: string): void {
    // Nobody who may not read any more is waited for.
    if (!this.#isWanted) return this.cut()
    this.#close(ended(reason))
  }

  goAway (retryAfterMs: number): void {
    this.#close(goingAway(retryAfterMs))
  }

  cut (): void {
    this.destroy()
  }

  #close (word: Buffer) {
    this.#readers.delete(this)
    this.#first.push(word, null)
    this.pump()
  }

  #pass (piece: Buffer | null) {
    this.#isWanted = false
    this.#movedAt = undefined
    this.push(piece)
  }
}
