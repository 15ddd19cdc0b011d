import { performance } from 'node:perf_hooks'
import type { Fields } from './fields.js'
import { Segment, type Hit } from './segment.js'
import { tokenize } from './tokens.js'

export type { Hit } from './segment.js'

export interface TextSearch {
  /** Hits with fewer of which similar words are looked for too. */
  limit: number
  accept: (id: string) => boolean
  /** Hits that are returned; default: `limit`. */
  keep?: number
}

const maxTerms = 16
const maxQueryLength = 4_000
const sliceMs = 5
/**
 * Pause between two slices, so that indexing takes a fifth of one core at most; while the process has no time left, the
 * pauses grow, so that requests have it: a search drains what it needs.
 */
const pauseMs = 4 * sliceMs
const maxPauseMs = 16 * pauseMs
const busy = 0.9
const minStale = 1_000

const byScore = (a: Hit, b: Hit) => b.score - a.score || (a.id < b.id ? -1 : 1)

const turn = () => new Promise<void>(resolve => { setImmediate(resolve) })

/** The best `keep` of sorted hits that are accepted; those with the same score are in the order of their ids. */
function accepted (hits: readonly Hit[], accept: (id: string) => boolean, keep: number): Hit[] {
  const kept: Hit[] = []
  for (const { id, score } of hits) {
    if (kept.length >= keep && score < kept[keep - 1]!.score) break
    if (accept(id)) kept.push({ id, score })
  }
  return kept.sort(byScore).slice(0, keep)
}

/** Hits of the second choice, scaled so that the best of them comes after the worst of the first. */
function below (first: readonly Hit[], second: readonly Hit[]): Hit[] {
  const known = new Set(first.map(hit => hit.id))
  const rest = second.filter(hit => !known.has(hit.id))
  if (first.length === 0 || rest.length === 0) return rest
  const factor = 0.9 * first.at(-1)!.score / rest[0]!.score
  return rest.map(({ id, score }) => ({ id, score: score * factor }))
}

/** Full-text search over agents, indexed behind the writes in slices of at most 5 ms. */
export class TextIndex {
  readonly #textOf: (id: string) => Fields | undefined
  readonly #dirty = new Set<string>()
  #segment = new Segment()
  /** A segment in the making that is free of what was replaced, and the ids that it still lacks. */
  #next: { segment: Segment, missing: Iterator<string> } | undefined
  #timer: NodeJS.Timeout | undefined
  #pauseMs = pauseMs
  #utilization = performance.eventLoopUtilization()
  #closed = false

  /** @param textOf the text of an agent; undefined when there is none to be found by */
  constructor (textOf: (id: string) => Fields | undefined) {
    this.#textOf = textOf
  }

  /** Agents that can be found. */
  get size () { return this.#segment.size }
  /** Texts that were replaced or removed and still take room. */
  get stale () { return this.#segment.stale }
  /** Agents whose change is not indexed yet. */
  get pending () { return this.#dirty.size }

  /** Says that the text of an agent may be another one, or gone. */
  change (id: string): void {
    this.#dirty.add(id)
    this.#schedule()
  }

  /** Indexes what is waiting now, at most `limit` of it, and lets others in after every slice. */
  async drain (limit = 1_000): Promise<void> {
    let left = Math.min(limit, this.#dirty.size)
    while (left > 0 && this.#dirty.size > 0 && !this.#closed) {
      left -= this.#slice(left)
      if (left > 0) await turn()
    }
  }

  /**
   * Agents that have words of the query, best first, ties by id: whole words and the beginning of the last one; only
   * when those are fewer than `limit`, words with one wrong letter too, which come after them.
   */
  search (query: string, { limit, accept, keep = limit }: TextSearch): Hit[] {
    const terms = [...new Set(tokenize(query.slice(0, maxQueryLength)))].slice(0, maxTerms)
    if (terms.length === 0) return []
    const exact = accepted(this.#segment.find(terms), accept, keep)
    const first = exact.length > 0 ? exact : accepted(this.#segment.findCommon(terms), accept, keep)
    if (first.length >= limit) return first
    return [...first, ...below(first, accepted(this.#segment.findSimilar(terms), accept, keep))].slice(0, keep)
  }

  close (): void {
    this.#closed = true
    clearTimeout(this.#timer)
    this.#dirty.clear()
    this.#next = undefined
  }

  #schedule () {
    if (this.#timer || this.#closed) return
    this.#timer = setTimeout(() => this.#work(), this.#pauseMs).unref()
  }

  /** Takes the measure of the time since the last slice for the pause after this one. */
  #pace () {
    const since = this.#utilization
    this.#utilization = performance.eventLoopUtilization()
    const { utilization } = performance.eventLoopUtilization(this.#utilization, since)
    this.#pauseMs = utilization > busy ? Math.min(2 * this.#pauseMs, maxPauseMs) : pauseMs
  }

  #work () {
    this.#timer = undefined
    this.#pace()
    this.#slice(Infinity)
    if (this.#dirty.size > 0 || this.#next) this.#schedule()
  }

  /** Works for 5 ms at most. @returns how many agents were indexed */
  #slice (limit: number): number {
    const end = performance.now() + sliceMs
    let done = 0
    for (const id of this.#dirty) {
      if (done === limit || performance.now() >= end) return done
      this.#dirty.delete(id)
      this.#index(id)
      done++
    }
    while (this.#next && performance.now() < end) this.#renew()
    return done
  }

  #index (id: string) {
    const text = this.#textOf(id)
    for (const segment of [this.#segment, this.#next?.segment]) {
      if (text) segment?.put(id, text)
      else segment?.remove(id)
    }
    const { stale, size } = this.#segment
    if (stale > Math.max(minStale, size)) this.#next ??= { segment: new Segment(), missing: [...this.#segment.ids()].values() }
  }

  /** Copies one agent into the next segment, which takes over once it has all. */
  #renew () {
    const { segment, missing } = this.#next!
    const { done, value } = missing.next()
    const text = done ? undefined : this.#textOf(value)
    if (text) segment.put(value as string, text)
    if (!done) return
    this.#segment = segment
    this.#next = undefined
  }
}
