import type { Clock } from '../lib/clock.js'

interface Seen { until: number, heldBack: number }

/** Lets the first of equal events through and then one per window, so that nobody can fill a log with one thing. */
export class Repeats {
  readonly #now: Clock
  readonly #windowMs: number
  readonly #maxKeys: number
  readonly #seen = new Map<string, Seen>()

  /** @param maxKeys events that are told apart; over it the oldest are forgotten */
  constructor ({ now, windowMs = 10_000, maxKeys = 1_000 }: { now: Clock, windowMs?: number, maxKeys?: number }) {
    this.#now = now
    this.#windowMs = windowMs
    this.#maxKeys = maxKeys
  }

  /** @returns how many were held back since the last that passed; undefined when this one is held back too */
  pass (key: string): number | undefined {
    const now = this.#now()
    const seen = this.#seen.get(key)
    if (seen && now < seen.until) {
      seen.heldBack++
      return undefined
    }
    this.#seen.delete(key)
    this.#seen.set(key, { until: now + this.#windowMs, heldBack: 0 })
    if (this.#seen.size > this.#maxKeys) this.#seen.delete(this.#seen.keys().next().value!)
    return seen?.heldBack ?? 0
  }
}
