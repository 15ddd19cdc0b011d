import type { LabelledRequest } from './request-stats.js'

type Labels = { method: string, endpoint: string, status_code: string }

interface Series {
  readonly labels: Labels
  count: number
  /** Seconds. */
  sum: number
  /** How many fell into each bucket, and into none below it. */
  readonly counts: number[]
}

/** A series as it is read: `upTo` holds pairs of a bound in seconds and how many answers took no longer. */
export interface SeriesReading { readonly labels: Labels, readonly count: number, readonly sum: number, readonly upTo: ReadonlyArray<readonly [number, number]> }

/** How long answers took, by method, route and status: one look into a Map for each of them. */
export class ResponseTimes {
  readonly #bounds: readonly number[]
  readonly #series = new Map<string, Series>()

  /** @param bounds upper bounds of the buckets in seconds, ascending */
  constructor (bounds: readonly number[]) {
    this.#bounds = bounds
  }

  record (answer: LabelledRequest): void {
    const seconds = answer.elapsedMs / 1000
    const series = this.#of(answer)
    series.count++
    series.sum += seconds
    const bucket = this.#bounds.findIndex(bound => seconds <= bound)
    if (bucket >= 0) series.counts[bucket]!++
  }

  * series (): Generator<SeriesReading> {
    for (const { labels, count, sum, counts } of this.#series.values()) {
      const upTo: Array<readonly [number, number]> = []
      let sofar = 0
      for (const [index, bound] of this.#bounds.entries()) {
        sofar += counts[index]!
        upTo.push([bound, sofar])
      }
      yield { labels, count, sum, upTo }
    }
  }

  #of ({ method, endpoint, statusCode }: LabelledRequest): Series {
    const key = `${method} ${endpoint} ${statusCode}`
    const known = this.#series.get(key)
    if (known) return known
    const made = { labels: { method, endpoint, status_code: String(statusCode) }, count: 0, sum: 0, counts: this.#bounds.map(() => 0) }
    this.#series.set(key, made)
    return made
  }
}
