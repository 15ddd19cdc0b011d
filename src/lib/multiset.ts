/** Counts how often each key was added. Keys with a count of 0 are not kept. */
export class Multiset<K = string> {
  readonly #counts = new Map<K, number>()

  count (key: K): number {
    return this.#counts.get(key) ?? 0
  }

  add (key: K): void {
    this.#counts.set(key, this.count(key) + 1)
  }

  delete (key: K): void {
    const count = this.count(key) - 1
    if (count > 0) this.#counts.set(key, count)
    else this.#counts.delete(key)
  }

  clear (): void {
    this.#counts.clear()
  }
}
