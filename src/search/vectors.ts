import { EmbeddingError } from '../errors.js'
import { type Embedder, textKey } from './embedder.js'

interface Neighbour { id: string, similarity: number }

interface VectorSearch {
  limit: number
  /** Cosine, -1 to 1. */
  minSimilarity: number
  accept: (id: string) => boolean
}

const initialRows = 64

const bySimilarity = (a: Neighbour, b: Neighbour) => b.similarity - a.similarity || (a.id < b.id ? -1 : 1)

function lengthOf (vector: ArrayLike<number>): number {
  let sum = 0
  for (let index = 0; index < vector.length; index++) sum += vector[index]! ** 2
  return Math.sqrt(sum)
}

/** Unit vectors of agents, stored in one contiguous block, with search by cosine similarity. */
export class VectorIndex {
  readonly #rows = new Map<string, number>()
  readonly #ids: string[] = []
  #dimension = 0
  #block = new Float32Array(0)

  get size () { return this.#ids.length }
  /** Length of all vectors; 0 while there are none. */
  get dimension () { return this.#dimension }

  has (id: string): boolean {
    return this.#rows.has(id)
  }

  /** @throws AGENT_REGISTRY_EMBEDDING_FAILED if the vector has another length than the others, or no direction */
  set (id: string, vector: ArrayLike<number>): void {
    const unit = this.unit(vector)
    this.#dimension = unit.length
    const row = this.#rows.get(id) ?? this.#append(id)
    this.#block.set(unit, row * this.#dimension)
  }

  /** Moves the last row into the deleted one, so that the block has no gaps. */
  delete (id: string): void {
    const row = this.#rows.get(id)
    if (row === undefined) return
    const lastId = this.#ids.pop()
    this.#rows.delete(id)
    if (lastId === undefined || lastId === id) return
    const from = this.#ids.length * this.#dimension
    this.#block.copyWithin(row * this.#dimension, from, from + this.#dimension)
    this.#ids[row] = lastId
    this.#rows.set(lastId, row)
  }

  /**
   * Finds the nearest agents by cosine similarity, best first, ties by id.
   * @throws AGENT_REGISTRY_EMBEDDING_FAILED if the vector has another length than the stored ones
   */
  nearest (vector: ArrayLike<number>, { limit, minSimilarity, accept }: VectorSearch): Neighbour[] {
    if (this.size === 0) return []
    const unit = this.unit(vector)
    const found: Neighbour[] = []
    for (const [row, id] of this.#ids.entries()) {
      const similarity = this.#dot(unit, row)
      if (similarity >= minSimilarity && accept(id)) found.push({ id, similarity })
    }
    return found.sort(bySimilarity).slice(0, limit)
  }

  /**
   * @returns the vector scaled to length 1
   * @throws AGENT_REGISTRY_EMBEDDING_FAILED if it has another length than the stored ones, or no direction
   */
  unit (vector: ArrayLike<number>): Float32Array {
    if (this.#dimension > 0 && vector.length !== this.#dimension) {
      throw new EmbeddingError(`a vector has ${vector.length} numbers, the others have ${this.#dimension}`)
    }
    const length = lengthOf(vector)
    if (!(length > 0 && length < Infinity)) throw new EmbeddingError('a vector has no direction')
    return Float32Array.from(vector, value => value / length)
  }

  #dot (unit: Float32Array, row: number): number {
    const block = this.#block
    const start = row * unit.length
    let sum = 0
    for (let index = 0; index < unit.length; index++) sum += unit[index]! * block[start + index]!
    return sum
  }

  #append (id: string): number {
    const row = this.#ids.push(id) - 1
    this.#rows.set(id, row)
    const needed = this.#ids.length * this.#dimension
    if (needed > this.#block.length) this.#grow(needed)
    return row
  }

  #grow (needed: number) {
    const grown = new Float32Array(Math.max(2 * needed, initialRows * this.#dimension))
    grown.set(this.#block)
    this.#block = grown
  }
}

interface VectorIndexerOptions {
  embedder: Embedder
  vectors: VectorIndex
  /** Returns the text of an agent, or undefined if the agent must not be found. */
  textOf: (id: string) => string | undefined
  /** Pause before texts that could not be embedded are tried again (ms). */
  retryMs?: number
  onError: (error: unknown) => void
}

const batchSize = 64

/** Keeps the vectors of changed agents up to date, asynchronously and as fast as the host embeds texts. */
export class VectorIndexer {
  readonly #options: VectorIndexerOptions
  readonly #retryMs: number
  readonly #dirty = new Set<string>()
  /** Hash of the text from which the vector of an agent was made. */
  readonly #keys = new Map<string, string>()
  #timer: NodeJS.Timeout | undefined
  #isClosed = false

  constructor (options: VectorIndexerOptions) {
    this.#options = options
    this.#retryMs = options.retryMs ?? 30_000
  }

  /** Number of agents whose change is not in the index yet. */
  get pending () { return this.#dirty.size }

  /** Marks an agent whose text may have changed or gone. */
  change (id: string): void {
    this.#dirty.add(id)
    this.#schedule(0)
  }

  close (): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
    this.#dirty.clear()
  }

  /** The timer stays set until its batch is done, so that one batch is processed at a time. */
  #schedule (pauseMs: number) {
    if (this.#isClosed) return
    this.#timer ??= setTimeout(() => { this.#work() }, pauseMs).unref()
  }

  async #work (): Promise<void> {
    const ids = this.#take()
    const failed: string[] = []
    let reason: unknown
    await Promise.all(ids.map(id => this.#update(id).catch(error => {
      if (failed.push(id) === 1) reason = error
    })))
    this.#timer = undefined
    if (this.#isClosed) return
    for (const id of failed) this.#dirty.add(id)
    if (failed.length > 0) this.#options.onError(reason)
    if (this.#dirty.size > 0) this.#schedule(failed.length > 0 ? this.#retryMs : 0)
  }

  #take (): string[] {
    const ids: string[] = []
    for (const id of this.#dirty) {
      if (ids.length === batchSize) break
      ids.push(id)
      this.#dirty.delete(id)
    }
    return ids
  }

  async #update (id: string): Promise<void> {
    const { embedder, vectors, textOf } = this.#options
    const text = textOf(id)
    if (text === undefined) return this.#forget(id)
    const key = textKey(text)
    if (this.#keys.get(id) === key) return
    const vector = await embedder.embed(text)
    vectors.set(id, vector)
    this.#keys.set(id, key)
  }

  #forget (id: string) {
    this.#options.vectors.delete(id)
    this.#keys.delete(id)
  }
}
