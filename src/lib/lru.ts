/** A map of at most `limit` entries: the one that was not asked for longest goes first. */
export class LruMap<V> {
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
    if (this.#entries.size > this.#limit) this.#entries.delete(this.#entries.keys().next().value!)
  }
}
