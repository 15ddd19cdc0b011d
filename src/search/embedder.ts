import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { EmbeddingError } from '../errors.js'
import { callHook } from '../protocol/hooks.js'
import { LruMap } from '../lib/lru.js'

/** Makes one vector of each text, in their order, all of the same length. */
export type EmbedHook = (texts: string[]) => Array<ArrayLike<number>> | Promise<Array<ArrayLike<number>>>

export interface EmbedderOptions {
  embed: EmbedHook
  /** Time that one call of `embed` may take (ms). */
  timeoutMs: number
  /** Calls of `embed` at once. */
  concurrency?: number
  /** Texts that may wait; the next is refused. */
  maxQueued?: number
  /** Vectors that are kept for texts that come again. */
  cacheSize?: number
  /** Pause before the second try; doubles with each (ms). */
  backOffMs?: number
}

interface Flight {
  readonly key: string
  readonly text: string
  readonly promise: Promise<Float32Array>
  readonly resolve: (vector: Float32Array) => void
  readonly reject: (error: unknown) => void
}

const maxBatch = 64
const maxTries = 3

/** Stands for a text. */
export const textKey = (text: string) => createHash('sha256').update(text).digest('base64')

/** The vectors of an answer of the host. @throws AGENT_REGISTRY_EMBEDDING_FAILED when they are not what was asked for */
function vectorsOf (answer: unknown, count: number, dimension: number): Float32Array[] {
  if (!Array.isArray(answer) || answer.length !== count) throw new EmbeddingError(`expected ${count} vectors`)
  const vectors = answer.map((vector: ArrayLike<number>) => Float32Array.from(vector ?? []))
  const expected = dimension || vectors[0]!.length
  if (expected === 0 || vectors.some(vector => vector.length !== expected)) throw new EmbeddingError('vectors differ in length')
  if (!vectors.every(vector => vector.every(Number.isFinite))) throw new EmbeddingError('a vector holds what is not a number')
  return vectors
}

/**
 * Asks the host for vectors: texts of the same moment in one call, each text once at a time, and again with longer
 * pauses when a call fails.
 */
export class Embedder {
  readonly #options: Required<EmbedderOptions>
  readonly #cache: LruMap<Float32Array>
  readonly #flights = new Map<string, Flight>()
  readonly #closing = new AbortController()
  #queue: Flight[] = []
  #running = 0
  #dimension = 0

  constructor (options: EmbedderOptions) {
    this.#options = { concurrency: 1, maxQueued: 1_000, cacheSize: 1_000, backOffMs: 250, ...options }
    this.#cache = new LruMap(this.#options.cacheSize)
  }

  /** @throws AGENT_REGISTRY_EMBEDDING_FAILED, or what the host threw last */
  async embed (text: string): Promise<Float32Array> {
    const key = textKey(text)
    const known = this.#cache.get(key)
    return known ?? (this.#flights.get(key) ?? this.#enqueue(key, text)).promise
  }

  /** Ends everything that waits. */
  close (): void {
    this.#closing.abort()
    this.#queue = []
    for (const flight of this.#flights.values()) this.#fail(flight, new EmbeddingError('closed'))
  }

  #enqueue (key: string, text: string): Flight {
    if (this.#closing.signal.aborted) throw new EmbeddingError('closed')
    if (this.#queue.length >= this.#options.maxQueued) throw new EmbeddingError('too many texts are waiting')
    const { promise, resolve, reject } = withResolvers<Float32Array>()
    const flight = { key, text, promise, resolve, reject }
    this.#flights.set(key, flight)
    this.#queue.push(flight)
    // What is asked for in the same tick leaves in one batch.
    if (this.#queue.length === 1) queueMicrotask(() => this.#pump())
    return flight
  }

  #pump () {
    while (this.#running < this.#options.concurrency && this.#queue.length > 0) {
      this.#running++
      this.#take(this.#queue.splice(0, maxBatch)).finally(() => {
        this.#running--
        this.#pump()
      })
    }
  }

  async #take (batch: Flight[]): Promise<void> {
    try {
      await this.#persist(batch)
    } catch (error) {
      await this.#isolate(batch, error)
    }
  }

  /** Calls until it works, three times at most. */
  async #persist (batch: Flight[], tries = 1): Promise<void> {
    try {
      await this.#call(batch)
    } catch (error) {
      if (tries === maxTries || this.#closing.signal.aborted) throw error
      const pause = this.#options.backOffMs * 2 ** (tries - 1) * (0.5 + Math.random())
      await sleep(pause, undefined, { signal: this.#closing.signal, ref: false })
      await this.#persist(batch, tries + 1)
    }
  }

  /** Finds the text that the host cannot take: by halves, and not at all when both fail, as they do in an outage. */
  async #isolate (batch: Flight[], error: unknown): Promise<void> {
    if (batch.length === 1) return this.#fail(batch[0]!, error)
    const middle = batch.length >> 1
    const failed: Flight[][] = []
    for (const half of [batch.slice(0, middle), batch.slice(middle)]) {
      if (!await this.#works(half)) failed.push(half)
    }
    if (failed.length === 1) return this.#isolate(failed[0]!, error)
    for (const flight of failed.flat()) this.#fail(flight, error)
  }

  async #works (batch: Flight[]): Promise<boolean> {
    if (this.#closing.signal.aborted) return false
    try {
      await this.#call(batch)
      return true
    } catch {
      return false
    }
  }

  async #call (batch: Flight[]): Promise<void> {
    const { embed, timeoutMs } = this.#options
    const answer = await callHook('embed', timeoutMs, () => embed(batch.map(flight => flight.text)))
    const vectors = vectorsOf(answer, batch.length, this.#dimension)
    this.#dimension = vectors[0]!.length
    for (const [index, flight] of batch.entries()) this.#succeed(flight, vectors[index]!)
  }

  #succeed (flight: Flight, vector: Float32Array) {
    this.#cache.set(flight.key, vector)
    this.#flights.delete(flight.key)
    flight.resolve(vector)
  }

  #fail (flight: Flight, error: unknown) {
    this.#flights.delete(flight.key)
    flight.reject(error)
  }
}

function withResolvers<T> () {
  let resolve!: (value: T) => void
  let reject!: (error: unknown) => void
  const promise = new Promise<T>((...settle) => { [resolve, reject] = settle })
  return { promise, resolve, reject }
}
