import { Readable } from 'node:stream'
import type { Principal } from '../protocol/principal.js'
import { jittered } from '../lib/jitter.js'
import type { LongRequest, LongRequests } from '../limits/long-requests.js'
import type { Cursor } from '../registry/feed/cursor.js'
import { pageMembers, type FeedEncoding } from '../registry/feed/delta.js'
import type { StreamSubscriber, FeedSubscribers } from '../registry/feed/subscribers.js'

const retryMs = 2_000

/** An event id from which the feed does not continue: a client that reconnects with it receives a snapshot. */
const incompleteId = 'incomplete'

const block = (event: string, id: string, data: string) => `id: ${id}\nevent: ${event}\ndata: ${data}\n\n`

/** Server-Sent Events (HTML Living Standard §9.2). The id of each event is the revision from which the feed continues. */
export const eventsEncoding: FeedEncoding<Buffer> = {
  name: 'events',
  changes: deltas => Buffer.from(deltas.map(({ revision, op, json }) => block(op, revision, json)).join('')),
  page: page => Buffer.from(block('snapshot', page.last ? page.revision : incompleteId, `{${pageMembers(page)}}`)),
  resync: revision => Buffer.from(block('resync', incompleteId, `{"revision":"${revision}"}`)),
  bookmark: bookmark => Buffer.from(block('bookmark', bookmark.revision, JSON.stringify(bookmark)))
}

/** The first block: the retry time after a disconnect, and the id to reconnect with. */
const opening = (retryMs: number, revision: string | null) => Buffer.from(`retry: ${retryMs}\nid: ${revision ?? incompleteId}\n\n`)

/** A comment, which keeps the connection open and which clients ignore. */
const keepAlive = Buffer.from(':\n\n')

/** The server shuts down: the client reconnects after `retryAfterMs`. */
const goingAway = (retryAfterMs: number) =>
  Buffer.from(`retry: ${retryAfterMs}\nevent: going_away\ndata: {"retryAfterMs":${retryAfterMs}}\n\n`)

/** The principal has lost the right to read. */
const ended = (reason: string) => Buffer.from(`event: end\ndata: ${JSON.stringify({ reason })}\n\n`)

interface EventStreamOptions {
  cursor: Cursor<Buffer>
  /** The revision at which the stream starts; null if it starts with a snapshot. */
  revision: string | null
  subscribers: FeedSubscribers
  longRequests: LongRequests
  principal: Principal
  address: string
  keepAliveMs: number
}

/**
 * The feed as Server-Sent Events. One chunk is on its way at a time, and the next one is made when that has been read.
 * A client that reads nothing for two keep-alive intervals is disconnected.
 */
export class EventStream extends Readable implements StreamSubscriber<Buffer>, LongRequest {
  readonly cursor: Cursor<Buffer>
  readonly principal: Principal
  readonly address: string
  readonly #subscribers: FeedSubscribers
  readonly #longRequests: LongRequests
  readonly #keepAliveMs: number
  /** Chunks that are sent before the feed; null ends the stream. */
  readonly #queue: Array<Buffer | null>
  #isReading = false
  /** When the last chunk was sent, by the clock of `tick`. */
  #sentAt: number | undefined

  constructor ({ cursor, revision, subscribers, longRequests, principal, address, keepAliveMs }: EventStreamOptions) {
    // Any chunk fills the buffer, so that the next read happens after it has left.
    super({ highWaterMark: 1 })
    this.cursor = cursor
    this.principal = principal
    this.address = address
    this.#subscribers = subscribers
    this.#longRequests = longRequests
    this.#keepAliveMs = keepAliveMs
    this.#queue = [opening(Math.round(jittered(retryMs, 0.5)), revision)]
    subscribers.add(this)
    longRequests.add(this)
  }

  get position () { return this.cursor.position }

  override _read (): void {
    this.#isReading = true
    this.pump()
  }

  override _destroy (error: Error | null, done: (error?: Error | null) => void): void {
    this.#subscribers.delete(this)
    this.#longRequests.delete(this)
    done(error)
  }

  pump (): void {
    if (!this.#isReading || this.destroyed) return
    const queued = this.#queue.shift()
    const chunk = queued === undefined ? this.cursor.next() : queued
    if (chunk === null && queued === undefined) this.#subscribers.park(this)
    else this.#send(chunk)
  }

  sendBookmark (bookmark: Buffer): void {
    if (this.#isReading) this.#send(bookmark)
  }

  tick (now: number): void {
    this.#sentAt ??= now
    const idleMs = now - this.#sentAt
    if (this.#isReading && idleMs >= this.#keepAliveMs) this.#send(keepAlive)
    else if (idleMs >= 2 * this.#keepAliveMs) this.abort()
  }

  end (reason: string): void {
    // A client that may not read any more gets no time to drain its buffer.
    if (!this.#isReading) return this.abort()
    this.#finish(ended(reason))
  }

  announceShutdown (retryAfterMs: number): void {
    this.#finish(goingAway(retryAfterMs))
  }

  abort (): void {
    this.destroy()
  }

  #finish (lastChunk: Buffer) {
    this.#subscribers.delete(this)
    this.#queue.push(lastChunk, null)
    this.pump()
  }

  #send (chunk: Buffer | null) {
    this.#isReading = false
    this.#sentAt = undefined
    this.push(chunk)
  }
}
