import type { AgentInfo, AgentMetrics } from '../protocol/schemas/agent.js'
import type { SearchRequest, SearchResult } from '../protocol/schemas/search.js'
import type { AgentRecord, Difference } from '../storage/agent-store.js'
import { callHook } from '../protocol/hooks.js'
import { matches, type AgentFilter } from '../registry/query.js'
import { isPublic, type Replica } from '../registry/replica.js'
import { Embedder, type EmbedHook } from './embedder.js'
import { fieldsOf, textOfFields, type Fields } from './fields.js'
import { TextIndex } from './text-index.js'
import { VectorFeed } from './vector-feed.js'
import { VectorIndex } from './vectors.js'

export interface SearchOptions {
  replica: Replica
  /** Hears of every change, after the replica has it, and of what differs after a reload; returns how to stop. */
  onDifference: (listener: (difference: Difference) => void) => () => void
  /** Makes vectors of texts; without it search is by words. */
  embed?: EmbedHook
  /** Time that the host may take for the vector of a query, and for one batch of others (ms). */
  hookTimeoutMs: number
  /** What weighted search goes by; null for an agent without a reputation. */
  metricsOf?: (record: AgentRecord) => Pick<AgentMetrics, 'reputation_score'> | null
  onError: (error: unknown) => void
}

interface Candidate { id: string, similarity: number }
type Accept = (id: string) => boolean

const documentQueue = 1_000
const queriesAtOnce = 4

const round = (similarity: number) => Math.round(Math.min(1, Math.max(0, similarity)) * 10_000) / 10_000

/** Whether what an agent is found by may be another text after this change. */
const changesText = ({ before, after }: Difference) =>
  before === null || after === null || before.body !== after.body || before.publicBody !== after.publicBody

/** 0.7 to 1.3; a reputation above 1 is on the scale to 10. */
function weightOf (metrics: Pick<AgentMetrics, 'reputation_score'> | null): number {
  const reputation = metrics?.reputation_score ?? 0
  return 0.7 + 0.6 * Math.min(1, Math.max(0, reputation > 1 ? reputation / 10 : reputation))
}

/**
 * Search over the agents that discovery shows, by what everybody may see of them. Indexes follow the registry behind
 * its writes.
 */
export class Search {
  readonly #options: SearchOptions
  readonly #replica: Replica
  readonly #text: TextIndex
  readonly #vectors = new VectorIndex()
  readonly #queries: Embedder | undefined
  readonly #documents: Embedder | undefined
  readonly #feed: VectorFeed | undefined
  #stop: (() => void) | undefined

  constructor (options: SearchOptions) {
    const { replica, embed, hookTimeoutMs: timeoutMs, onError } = options
    this.#options = options
    this.#replica = replica
    this.#text = new TextIndex(id => this.#fields(id))
    if (!embed) return
    this.#queries = new Embedder({ embed, timeoutMs, concurrency: queriesAtOnce })
    this.#documents = new Embedder({ embed, timeoutMs, maxQueued: documentQueue })
    this.#feed = new VectorFeed({ embedder: this.#documents, vectors: this.#vectors, textOf: id => this.#textOf(id), onError })
  }

  /** Searches since the start. */
  readonly tally = { succeeded: 0, failed: 0 }

  /** Agents that have a vector. */
  get vectorCount () { return this.#vectors.size }

  /** Takes in what the replica holds, and follows it from there. */
  open (): void {
    this.#stop ??= this.#options.onDifference(difference => { if (changesText(difference)) this.#changed(difference.id) })
    for (const { record } of this.#replica.entries) this.#changed(record.id)
  }

  close (): void {
    this.#stop?.()
    this.#text.close()
    this.#feed?.close()
    this.#queries?.close()
    this.#documents?.close()
  }

  /**
   * At most `top_k` agents, best first, ties by id: by cosine similarity where there are vectors, else by words, where
   * the best hit has 1 and a hopeless one 0.5.
   */
  async search (request: SearchRequest): Promise<SearchResult[]> {
    try {
      const results = await this.#find(request)
      this.tally.succeeded++
      return results
    } catch (error) {
      this.tally.failed++
      throw error
    }
  }

  async #find (request: SearchRequest): Promise<SearchResult[]> {
    const vector = await this.#vectorOf(request.query)
    await this.#text.drain()
    const accept = this.#acceptOf(request)
    const candidates = vector ? this.#near(vector, request, accept) : this.#worded(request, accept)
    const best = this.#rank(candidates, request.weighted).slice(0, request.top_k)
    return best.map(candidate => this.#result(candidate, request.weighted))
  }

  #changed (id: string) {
    this.#text.change(id)
    this.#feed?.change(id)
  }

  #publicView (id: string): AgentInfo | undefined {
    const text = this.#replica.get(id)?.rendering.public()
    return text ? JSON.parse(text) as AgentInfo : undefined
  }

  #fields (id: string): Fields | undefined {
    // Indexing goes on behind the writes: one record that cannot be shown must not end it, nor the process.
    try {
      const view = this.#publicView(id)
      return view && fieldsOf(view)
    } catch (error) {
      this.#options.onError(error)
      return undefined
    }
  }

  #textOf (id: string): string | undefined {
    const fields = this.#fields(id)
    return fields && textOfFields(fields)
  }

  #acceptOf ({ agent_type: type, capabilities }: SearchRequest): Accept {
    const filter: AgentFilter = { agent_type: type ?? undefined, capabilities: capabilities ?? undefined }
    return id => {
      const record = this.#replica.get(id)?.record
      return record !== undefined && isPublic(record) && matches('public', record, filter)
    }
  }

  /** Undefined when there is nothing to compare with, or the host fails: words are always there. */
  async #vectorOf (query: string): Promise<Float32Array | undefined> {
    const embedder = this.#queries
    if (!embedder || this.#vectors.size === 0) return undefined
    try {
      return this.#vectors.unit(await callHook('embed', this.#options.hookTimeoutMs, () => embedder.embed(query)))
    } catch (error) {
      this.#options.onError(error)
    }
  }

  #worded ({ query, top_k: limit, min_similarity: least, weighted }: SearchRequest, accept: Accept, keep = weighted ? Infinity : limit): Candidate[] {
    const hits = this.#text.search(query, { limit, accept, keep })
    const best = hits[0]?.score ?? 1
    return hits.map(({ id, score }) => ({ id, similarity: round(0.5 + 0.5 * score / best) })).filter(({ similarity }) => similarity >= least)
  }

  /** By vector; agents whose vector is not there yet by words. */
  #near (vector: Float32Array, request: SearchRequest, accept: Accept): Candidate[] {
    const limit = request.weighted ? Infinity : request.top_k
    const near = this.#vectors.nearest(vector, { limit, minSimilarity: request.min_similarity, accept })
      .map(({ id, similarity }) => ({ id, similarity: round(similarity) }))
    if (this.#vectors.size >= this.#text.size) return near
    const others = this.#worded(request, accept, Infinity).filter(({ id }) => !this.#vectors.has(id))
    return near.concat(others)
  }

  #rank (candidates: Candidate[], weighted: boolean): Candidate[] {
    const { metricsOf = () => null } = this.#options
    const weight = ({ id }: Candidate) => weighted ? weightOf(metricsOf(this.#replica.get(id)!.record)) : 1
    const ranked = candidates.map(candidate => ({ ...candidate, rank: candidate.similarity * weight(candidate) }))
    return ranked.sort((a, b) => b.rank - a.rank || (a.id < b.id ? -1 : 1))
  }

  #result ({ id, similarity }: Candidate, weighted: boolean): SearchResult {
    const { name, endpoint: url, capabilities, version, owner, metrics } = this.#publicView(id)!
    return { id, name, url, capabilities, version, owner, similarity, metrics: weighted ? metrics : null }
  }
}
