import type { Change } from '../storage/agent-store.js'

/** The newest changes, for readers that come back. */
export class ChangeRing {
  readonly #size: number
  #changes: Change[] = []
  #newest: number

  /** @param changes the newest up to `newest`, oldest first, without a gap */
  constructor ({ size, newest = 0, changes = [] }: { size: number, newest?: number, changes?: readonly Change[] }) {
    this.#size = size
    this.#newest = newest
    this.#changes = changes.slice(-size)
  }

  get newest () { return this.#newest }

  push (change: Change): void {
    this.#changes.push(change)
    this.#newest = change.n
    // Twice the size before cutting: each change is moved once at most.
    if (this.#changes.length >= 2 * this.#size) this.#changes = this.#changes.slice(-this.#size)
  }

  /** Whether every change after `n` is still there. */
  has (n: number): boolean {
    return n <= this.#newest && n >= this.#newest - Math.min(this.#changes.length, this.#size)
  }

  /** Changes after `n`, oldest first, at most `limit`. @param n a number that `has` said yes to */
  after (n: number, limit: number): Change[] {
    const start = this.#changes.length - (this.#newest - n)
    return this.#changes.slice(start, start + limit)
  }
}
