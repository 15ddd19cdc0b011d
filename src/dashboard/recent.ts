/** `bytes` is the size as JSON, which is only asked for when somebody reads. */
interface Item<T> { readonly value: T, bytes?: number }

function bytesOf<T> (item: Item<T>): number {
  item.bytes ??= Buffer.byteLength(JSON.stringify(item.value)) + 1
  return item.bytes
}

/** The newest `capacity` values. Adding is O(1). */
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
    const gone = this.#items[this.#next]
    this.#items[this.#next] = { value }
    this.#next = (this.#next + 1) % this.#capacity
    return gone?.value
  }

  /** Newest first: at most `count`, and no more than fit into `maxBytes` of JSON. */
  newest (count: number, maxBytes: number): T[] {
    const values: T[] = []
    let left = maxBytes
    for (let age = 1; age <= Math.min(count, this.size); age++) {
      const item = this.#items[(this.#next - age + this.size) % this.size]!
      left -= bytesOf(item)
      if (left < 0) break
      values.push(item.value)
    }
    return values
  }

  clear (): void {
    this.#items = []
    this.#next = 0
  }
}
