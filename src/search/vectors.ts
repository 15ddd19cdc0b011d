import { EmbeddingError } from '../errors.js'

export interface Neighbour { id: string, similarity: number }

export interface VectorSearch {
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

/** Vectors of agents, side by side in one block of memory, each of length 1. */
export class VectorIndex {
  readonly #rows = new Map<string, number>()
  readonly #ids: string[] = []
  #dimension = 0
  #block = new Float32Array(0)

  get size () { return this.#ids.length }
  /** Of the first vector; 0 before. */
  get dimension () { return this.#dimension }

  has (id: string): boolean {
    return this.#rows.has(id)
  }

  /** @throws AGENT_REGISTRY_EMBEDDING_FAILED when it is not as long as the others, or has no direction */
  set (id: string, vector: ArrayLike<number>): void {
    const unit = this.unit(vector)
    this.#dimension = unit.length
    const row = this.#rows.get(id) ?? this.#append(id)
    this.#block.set(unit, row * this.#dimension)
  }

  /** The last row takes the place of the one that goes. */
  delete (id: string): void {
    const row = this.#rows.get(id)
    if (row === undefined) return
    const lastId = this.#ids.pop()!
    this.#rows.delete(id)
    if (lastId === id) return
    const from = this.#ids.length * this.#dimension
    this.#block.copyWithin(row * this.#dimension, from, from + this.#dimension)
    this.#ids[row] = lastId
    this.#rows.set(lastId, row)
  }

  /**
   * The nearest by cosine, best first, ties by id.
   * @throws AGENT_REGISTRY_EMBEDDING_FAILED when the vector is not as long as those that are kept
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
   * The vector of length 1 with the same direction.
   * @throws AGENT_REGISTRY_EMBEDDING_FAILED when it is not as long as those that are kept, or has no direction
   */
  unit (vector: ArrayLike<number>): Float32Array {
    if (this.#dimension > 0 && vector.length !== this.#dimension) {
      throw new EmbeddingError(`a vector has ${vector.length} numbers, others have ${this.#dimension}`)
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
