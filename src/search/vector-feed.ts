import { textKey, type Embedder } from './embedder.js'
import type { VectorIndex } from './vectors.js'

export interface VectorFeedOptions {
  embedder: Embedder
  vectors: VectorIndex
  /** The text of an agent; undefined when there is none to be found by. */
  textOf: (id: string) => string | undefined
  /** Pause after texts that could not be embedded (ms). */
  retryMs?: number
  onError: (error: unknown) => void
}

const batchSize = 64

/** Brings vectors of changed agents into the index, behind the writes and as fast as the host makes them. */
export class VectorFeed {
  readonly #options: VectorFeedOptions
  readonly #retryMs: number
  readonly #dirty = new Set<string>()
  /** Of which text the vector of an agent was made. */
  readonly #keys = new Map<string, string>()
  #timer: NodeJS.Timeout | undefined
  #isClosed = false

  constructor (options: VectorFeedOptions) {
    this.#options = options
    this.#retryMs = options.retryMs ?? 30_000
  }

  /** Agents whose change has not reached the vectors yet. */
  get pending () { return this.#dirty.size }

  /** Says that the text of an agent may be another one, or gone. */
  change (id: string): void {
    this.#dirty.add(id)
    this.#schedule(0)
  }

  close (): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
    this.#dirty.clear()
  }

  /** The timer stands for the work too, until that is done: one batch at a time. */
  #schedule (pauseMs: number) {
    if (this.#isClosed) return
    this.#timer ??= setTimeout(() => { this.#work() }, pauseMs).unref()
  }

  async #work (): Promise<void> {
    const ids = this.#take()
    const results = await Promise.allSettled(ids.map(id => this.#update(id)))
    const failures = results.filter(result => result.status === 'rejected')
    this.#timer = undefined
    if (this.#isClosed) return
    for (const [index, id] of ids.entries()) if (results[index]!.status === 'rejected') this.#dirty.add(id)
    if (failures.length > 0) this.#options.onError(failures[0]!.reason)
    if (this.#dirty.size > 0) this.#schedule(failures.length > 0 ? this.#retryMs : 0)
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
