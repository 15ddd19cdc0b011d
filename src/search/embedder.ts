import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { EmbeddingError } from '../errors.js'
import type { EmbedHook } from '../hooks.js'
import { deleteOldest } from '../lib/expiring-map.js'
import { callHook } from '../lib/hook-timeout.js'

interface EmbedderOptions {
  embed: EmbedHook
  /** Timeout of one call of `embed` (ms). */
  timeoutMs: number
  /** Maximum number of concurrent calls of `embed`. */
  concurrency?: number
  /** Maximum number of queued texts; further texts are refused. */
  maxQueued?: number
  /** Number of cached vectors. */
  cacheSize?: number
  /** Pause before the second attempt; doubles with each attempt (ms). */
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
const maxAttempts = 3

/** Hash that identifies a text. */
export const textKey = (text: string) => createHash('sha256').update(text).digest('base64')

/**
 * @param dimension required length of the vectors; 0 accepts any length
 * @throws AGENT_REGISTRY_EMBEDDING_FAILED if the result of the host is not one valid vector for each text
 */
function parseVectors (result: unknown, count: number, dimension: number): Float32Array[] {
  if (!Array.isArray(result) || result.length !== count) throw new EmbeddingError(`expected ${count} vectors`)
  const vectors = result.map((vector: ArrayLike<number>) => Float32Array.from(vector ?? []))
  const expected = dimension || vectors[0]?.length || 0
  if (expected === 0 || vectors.some(vector => vector.length !== expected)) throw new EmbeddingError('the vectors differ in length')
  if (!vectors.every(vector => vector.every(Number.isFinite))) throw new EmbeddingError('a vector contains a value that is not a number')
  return vectors
}

/**
 * Requests vectors from the host: batches the texts of one tick, shares concurrent requests for the same text, and
 * retries failed calls with exponential backoff.
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

  /** @throws AGENT_REGISTRY_EMBEDDING_FAILED, or the last error of the host */
  async embed (text: string): Promise<Float32Array> {
    const key = textKey(text)
    const known = this.#cache.get(key)
    return known ?? (this.#flights.get(key) ?? this.#enqueue(key, text)).promise
  }

  /** Rejects all pending requests. */
  close (): void {
    this.#closing.abort()
    this.#queue = []
    for (const flight of this.#flights.values()) this.#fail(flight, new EmbeddingError('closed'))
  }

  #enqueue (key: string, text: string): Flight {
    if (this.#closing.signal.aborted) throw new EmbeddingError('closed')
    if (this.#queue.length >= this.#options.maxQueued) throw new EmbeddingError('too many texts are queued')
    const { promise, resolve, reject } = withResolvers<Float32Array>()
    const flight = { key, text, promise, resolve, reject }
    this.#flights.set(key, flight)
    this.#queue.push(flight)
    // Texts requested in the same tick form one batch.
    if (this.#queue.length === 1) queueMicrotask(() => this.#pump())
    return flight
  }

  #pump () {
    while (this.#running < this.#options.concurrency && this.#queue.length > 0) {
      this.#running++
      this.#process(this.#queue.splice(0, maxBatch)).finally(() => {
        this.#running--
        this.#pump()
      })
    }
  }

  async #process (batch: Flight[]): Promise<void> {
    try {
      await this.#callWithRetries(batch)
    } catch (error) {
      await this.#isolate(batch, error)
    }
  }

  async #callWithRetries (batch: Flight[], attempt = 1): Promise<void> {
    try {
      await this.#call(batch)
    } catch (error) {
      if (attempt === maxAttempts || this.#closing.signal.aborted) throw error
      const pause = this.#options.backOffMs * 2 ** (attempt - 1) * (0.5 + Math.random())
      await sleep(pause, undefined, { signal: this.#closing.signal, ref: false })
      await this.#callWithRetries(batch, attempt + 1)
    }
  }

  /** Finds the text that the host cannot embed by bisection. If both halves fail, as in an outage, the whole batch fails. */
  async #isolate (batch: Flight[], error: unknown): Promise<void> {
    if (batch.length > 1) {
      const middle = batch.length >> 1
      const [first, second] = [batch.slice(0, middle), batch.slice(middle)]
      const [firstSucceeds, secondSucceeds] = [await this.#succeeds(first), await this.#succeeds(second)]
      if (firstSucceeds && secondSucceeds) return
      if (firstSucceeds !== secondSucceeds) return this.#isolate(firstSucceeds ? second : first, error)
    }
    for (const flight of batch) this.#fail(flight, error)
  }

  async #succeeds (batch: Flight[]): Promise<boolean> {
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
    const result = await callHook('embed', timeoutMs, () => embed(batch.map(flight => flight.text)))
    const vectors = parseVectors(result, batch.length, this.#dimension)
    for (const [index, vector] of vectors.entries()) this.#resolve(batch[index], vector)
  }

  #resolve (flight: Flight | undefined, vector: Float32Array) {
    if (!flight) return
    this.#dimension = vector.length
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

/** A map of at most `limit` entries, from which the least recently used entry is removed first. */
class LruMap<V> {
  readonly #limit: number
  readonly #entries = new Map<string, V>()

  constructor (limit: number) {
    this.#limit = limit
  }

  get (key: string): V | undefined {
    const value = this.#entries.get(key)
    if (value !== undefined) this.set(key, value)
    return value
  }

  set (key: string, value: V): void {
    this.#entries.delete(key)
    this.#entries.set(key, value)
    if (this.#entries.size > this.#limit) deleteOldest(this.#entries)
  }
}
