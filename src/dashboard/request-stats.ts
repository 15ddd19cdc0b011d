import type { Clock } from '../lib/clock.js'
import { round } from './frame.js'

/** Requests of a window of time. */
export interface RequestSummary {
  total_requests: number
  /** Mean, in seconds with four decimals. */
  avg_response_time: number
  /** Share of answers of 500 and above, 0 to 1. */
  error_rate: number
}

/**
 * Counts of HTTP requests over a window that slides by one bucket at a time. Recording is O(1) and allocates nothing;
 * a summary is O(buckets).
 */
export class RequestStats {
  readonly #now: Clock
  readonly #bucketMs: number
  readonly #size: number
  /** Which stretch of time each bucket holds. */
  readonly #stretches: Float64Array
  readonly #counts: Float64Array
  readonly #errors: Float64Array
  readonly #times: Float64Array

  constructor ({ now, windowMs = 300_000, bucketMs = 5_000 }: { now: Clock, windowMs?: number, bucketMs?: number }) {
    this.#now = now
    this.#bucketMs = bucketMs
    this.#size = Math.ceil(windowMs / bucketMs)
    this.#stretches = new Float64Array(this.#size).fill(-1)
    this.#counts = new Float64Array(this.#size)
    this.#errors = new Float64Array(this.#size)
    this.#times = new Float64Array(this.#size)
  }

  record (durationMs: number, statusCode: number): void {
    const stretch = Math.floor(this.#now() / this.#bucketMs)
    const index = stretch % this.#size
    if (this.#stretches[index] !== stretch) this.#reset(index, stretch)
    this.#counts[index]!++
    this.#times[index]! += durationMs
    if (statusCode >= 500) this.#errors[index]!++
  }

  summary (): RequestSummary {
    const oldest = Math.floor(this.#now() / this.#bucketMs) - this.#size
    const total = { count: 0, errors: 0, time: 0 }
    for (let index = 0; index < this.#size; index++) {
      if (this.#stretches[index]! <= oldest) continue
      total.count += this.#counts[index]!
      total.errors += this.#errors[index]!
      total.time += this.#times[index]!
    }
    const requests = Math.max(1, total.count)
    return { total_requests: total.count, avg_response_time: round(total.time / requests / 1000, 4), error_rate: round(total.errors / requests, 4) }
  }

  #reset (index: number, stretch: number) {
    this.#stretches[index] = stretch
    this.#counts[index] = 0
    this.#errors[index] = 0
    this.#times[index] = 0
  }
}
