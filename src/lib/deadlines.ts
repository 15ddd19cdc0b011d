import type { Clock } from './clock.js'
import { DueHeap, type Due } from './due-heap.js'

/** What happens at a time, unless it is cancelled before. */
export interface Deadline extends Due { readonly expire: () => void }

/** Deadlines of a process, with one timer for all of them. */
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

  /** A timer that wakes too early, since its deadline was cancelled, costs less than to set another each time. */
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
