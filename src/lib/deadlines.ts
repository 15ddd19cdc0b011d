import type { Clock } from './clock.js'

/** An item of a heap: its time, and its position in the heap. */
interface Due { readonly at: number, index: number }

/** A binary heap ordered by time, from which any item can be removed. */
class DueHeap<T extends Due> {
  readonly #items: T[] = []

  get size () { return this.#items.length }
  get earliest (): T | undefined { return this.#items[0] }

  add (item: T): void {
    this.#items.push(item)
    this.#rise(item, this.#items.length - 1)
  }

  /** @returns whether the heap contained the item */
  delete (item: T): boolean {
    const { index } = item
    if (this.#items[index] !== item) return false
    const last = this.#items.pop()
    item.index = -1
    if (last === undefined || last === item) return true
    this.#rise(last, index)
    this.#sink(last, last.index)
    return true
  }

  clear (): void {
    this.#items.length = 0
  }

  #put (item: T, index: number) {
    this.#items[index] = item
    item.index = index
  }

  #rise (item: T, from: number) {
    let index = from
    while (index > 0) {
      const parent = this.#items[(index - 1) >> 1]
      if (parent === undefined || parent.at <= item.at) break
      this.#put(parent, index)
      index = (index - 1) >> 1
    }
    this.#put(item, index)
  }

  #sink (item: T, from: number) {
    let index = from
    for (;;) {
      const child = this.#earlierChild(index)
      if (!child || child.at >= item.at) break
      const next = child.index
      this.#put(child, index)
      index = next
    }
    this.#put(item, index)
  }

  #earlierChild (index: number): T | undefined {
    const left = this.#items[2 * index + 1]
    const right = this.#items[2 * index + 2]
    return right && left && right.at < left.at ? right : left
  }
}

/** A callback that runs at a time unless it is cancelled before. */
export interface Deadline extends Due { readonly expire: () => void }

/** Deadlines that share one timer. */
export class Deadlines {
  readonly #now: Clock
  readonly #heap = new DueHeap<Deadline>()
  #timer: NodeJS.Timeout | undefined
  #wakesAt = Infinity

  /** @param now never goes back */
  constructor (now: Clock) {
    this.#now = now
  }

  get size () { return this.#heap.size }

  /** @param expire must not throw */
  after (ms: number, expire: () => void): Deadline {
    const deadline = { at: this.#now() + ms, index: -1, expire }
    this.#heap.add(deadline)
    this.#arm()
    return deadline
  }

  cancel (deadline: Deadline): void {
    this.#heap.delete(deadline)
  }

  close (): void {
    this.#heap.clear()
    clearTimeout(this.#timer)
    this.#wakesAt = Infinity
  }

  /** The timer is not reset when a deadline is cancelled: an early wake-up costs less than another timer. */
  #arm () {
    const next = this.#heap.earliest
    if (!next || next.at >= this.#wakesAt) return
    clearTimeout(this.#timer)
    this.#wakesAt = next.at
    this.#timer = setTimeout(() => { this.#expire() }, Math.max(1, next.at - this.#now())).unref()
  }

  #expire () {
    this.#wakesAt = Infinity
    const now = this.#now()
    for (let next = this.#heap.earliest; next && next.at <= now; next = this.#heap.earliest) {
      this.#heap.delete(next)
      next.expire()
    }
    this.#arm()
  }
}
