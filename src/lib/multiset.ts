/** Counts how often each key was added. Keys with a count of 0 are not kept. */
export class Multiset<K = string> {
  readonly #counts = new Map<K, number>()

  /** The number of different keys. */
  get size () { return this.#counts.size }

  has (key: K): boolean {
    return this.#counts.has(key)
  }

  keys (): IterableIterator<K> {
    return this.#counts.keys()
  }

  count (key: K): number {
    return this.#counts.get(key) ?? 0
  }

  /** @returns the new count */
  add (key: K): number {
    const count = this.count(key) + 1
    this.#counts.set(key, count)
    return count
  }

  /** @returns the new count */
  delete (key: K): number {
    const count = this.count(key) - 1
    if (count > 0) this.#counts.set(key, count)
    else this.#counts.delete(key)
    return Math.max(0, count)
  }

  clear (): void {
    this.#counts.clear()
  }
}
