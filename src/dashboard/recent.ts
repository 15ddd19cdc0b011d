interface Item<T> { readonly value: T, readonly bytes: number }

/** The newest `capacity` values, each with the size that it has as JSON. Adding is O(1). */
export class Recent<T extends object> {
  readonly #capacity: number
  #items: Array<Item<T>> = []
  /** Where the next value goes once the ring is full. */
  #next = 0

  constructor (capacity: number) {
    this.#capacity = capacity
  }

  get size () { return this.#items.length }

  /** Returns the oldest value if it had to go. */
  add (value: T): T | undefined {
    const item = { value, bytes: Buffer.byteLength(JSON.stringify(value)) + 1 }
    const gone = this.#items[this.#next]
    this.#items[this.#next] = item
    this.#next = (this.#next + 1) % this.#capacity
    return gone?.value
  }

  /** Newest first: at most `count`, and no more than fit into `maxBytes` of JSON. */
  newest (count: number, maxBytes: number): T[] {
    const values: T[] = []
    let left = maxBytes
    for (let age = 1; age <= Math.min(count, this.size); age++) {
      const { value, bytes } = this.#items[(this.#next - age + this.size) % this.size]!
      left -= bytes
      if (left < 0) break
      values.push(value)
    }
    return values
  }

  clear (): void {
    this.#items = []
    this.#next = 0
  }
}
