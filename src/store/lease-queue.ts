/**
 * Ids in the order of their deadlines. All leases have the same length and the clock never goes back, so that a
 * renewed lease is always the last one and a Map, which keeps the order of insertion, is all it takes: renewing is
 * O(1), and finding what is due costs only what is due.
 */
export class LeaseQueue {
  readonly #deadlines = new Map<string, number>()
  #shift = 0

  get size () { return this.#deadlines.size }

  /** @param deadline epoch milliseconds, not before any other in the queue */
  set (id: string, deadline: number): void {
    this.#deadlines.delete(id)
    this.#deadlines.set(id, deadline - this.#shift)
  }

  delete (id: string): void {
    this.#deadlines.delete(id)
  }

  /** Moves every deadline `ms` later. */
  shift (ms: number): void {
    this.#shift += ms
  }

  /** Ids whose deadline is not after `now`, oldest first; the caller removes them or sets them again. */
  * due (now: number): Generator<string> {
    const limit = now - this.#shift
    for (const [id, deadline] of this.#deadlines) {
      if (deadline > limit) return
      yield id
    }
  }
}
