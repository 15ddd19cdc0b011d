import type { AgentInfo, AgentMetrics } from '../protocol/schemas/agent.js'
import type { SearchRequest, SearchResult } from '../protocol/schemas/search.js'
import type { AgentRecord, Difference } from '../storage/agent-store.js'
import { callHook } from '../lib/hook-timeout.js'
import { type AgentFilter, matches } from '../registry/query.js'
import { isPublic, type Replica } from '../registry/replica.js'
import type { EmbedHook } from '../hooks.js'
import { Embedder } from './embedder.js'
import { embeddedText, type Fields, fieldsOf, TextIndex } from './text-index.js'
import { VectorIndex, VectorIndexer } from './vectors.js'

export interface SearchOptions {
  replica: Replica
  /** Subscribes to changes of the replica; returns an unsubscribe function. */
  onDifference: (listener: (difference: Difference) => void) => () => void
  /** Embeds texts; without it, agents are searched by words. */
  embed?: EmbedHook
  /** Timeout of the host for the vector of a query, and for one batch of documents (ms). */
  hookTimeoutMs: number
  /** Values for requests that omit `top_k` and `min_similarity`. */
  defaults?: { topK: number, minSimilarity: number }
  /** Returns the metrics by which a weighted search ranks; null for an agent without a reputation. */
  metricsOf?: (record: AgentRecord) => Pick<AgentMetrics, 'reputation_score'> | null
  onError: (error: unknown) => void
}

interface Candidate { id: string, similarity: number }
type Accept = (id: string) => boolean

const documentQueue = 1_000
const fallbacks = { topK: 10, minSimilarity: 0.5 }
const queriesAtOnce = 4

const round = (similarity: number) => Math.round(Math.min(1, Math.max(0, similarity)) * 10_000) / 10_000

/** Whether a change may change the searchable text of an agent. */
const changesText = ({ before, after }: Difference) =>
  before === null || after === null || before.body !== after.body || before.publicBody !== after.publicBody

/** @returns 0.7 to 1.3; a reputation above 1 is read on a scale up to 10 */
function weightOf (metrics: Pick<AgentMetrics, 'reputation_score'> | null): number {
  const reputation = metrics?.reputation_score ?? 0
  return 0.7 + 0.6 * Math.min(1, Math.max(0, reputation > 1 ? reputation / 10 : reputation))
}

/** Search over the agents and fields that discovery shows. The indexes follow the registry asynchronously. */
export class Search {
  readonly #options: SearchOptions
  readonly #replica: Replica
  readonly #text: TextIndex
  readonly #vectors = new VectorIndex()
  readonly #queries: Embedder | undefined
  readonly #documents: Embedder | undefined
  readonly #indexer: VectorIndexer | undefined
  #stop: (() => void) | undefined

  constructor (options: SearchOptions) {
    const { replica, embed, hookTimeoutMs: timeoutMs, onError } = options
    this.#options = options
    this.#replica = replica
    this.#text = new TextIndex(id => this.#fields(id))
    if (!embed) return
    this.#queries = new Embedder({ embed, timeoutMs, concurrency: queriesAtOnce })
    this.#documents = new Embedder({ embed, timeoutMs, maxQueued: documentQueue })
    this.#indexer = new VectorIndexer({ embedder: this.#documents, vectors: this.#vectors, textOf: id => this.#textOf(id), onError })
  }

  /** Number of searches since the start. */
  readonly counters = { succeeded: 0, failed: 0 }

  /** Number of agents that have a vector. */
  get vectorCount () { return this.#vectors.size }

  /** Indexes the agents of the replica and subscribes to its changes. */
  open (): void {
    this.#stop ??= this.#options.onDifference(difference => { if (changesText(difference)) this.#changed(difference.id) })
    for (const { record } of this.#replica.entries) this.#changed(record.id)
  }

  close (): void {
    this.#stop?.()
    this.#text.close()
    this.#indexer?.close()
    this.#queries?.close()
    this.#documents?.close()
  }

  /**
   * Finds at most `top_k` agents, best first, ties by id: by cosine similarity if there are vectors, otherwise by words.
   * A search by words gives the best hit a similarity of 1, and all others at least 0.5.
   */
  async search (request: Pick<SearchRequest, 'query'> & Partial<SearchRequest>): Promise<SearchResult[]> {
    const { topK, minSimilarity } = this.#options.defaults ?? fallbacks
    try {
      const results = await this.#find({
        ...request,
        top_k: request.top_k ?? topK,
        min_similarity: request.min_similarity ?? minSimilarity,
        weighted: request.weighted ?? false
      })
      this.counters.succeeded++
      return results
    } catch (error) {
      this.counters.failed++
      throw error
    }
  }

  async #find (request: SearchRequest): Promise<SearchResult[]> {
    const vector = await this.#vectorOf(request.query)
    await this.#text.drain()
    const accept = this.#acceptOf(request)
    const candidates = vector ? this.#byVector(vector, request, accept) : this.#byWords(request, accept)
    const best = this.#rank(candidates, request.weighted).slice(0, request.top_k)
    return best.flatMap(candidate => this.#result(candidate, request.weighted))
  }

  #changed (id: string) {
    this.#text.change(id)
    this.#indexer?.change(id)
  }

  #publicView (id: string): AgentInfo | undefined {
    const text = this.#replica.get(id)?.rendering.public()
    return text ? JSON.parse(text) as AgentInfo : undefined
  }

  #fields (id: string): Fields | undefined {
    // Indexing runs in a timer: one record that cannot be rendered must not stop it, or end the process.
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
    return fields && embeddedText(fields)
  }

  #acceptOf ({ agent_type: type, capabilities }: SearchRequest): Accept {
    const filter: AgentFilter = { agent_type: type ?? undefined, capabilities: capabilities ?? undefined }
    return id => {
      const record = this.#replica.get(id)?.record
      return record !== undefined && isPublic(record) && matches('public', record, filter)
    }
  }

  /** Undefined if there are no vectors or the host fails; the search then uses words. */
  async #vectorOf (query: string): Promise<Float32Array | undefined> {
    const embedder = this.#queries
    if (!embedder || this.#vectors.size === 0) return undefined
    try {
      return this.#vectors.unit(await callHook('embed', this.#options.hookTimeoutMs, () => embedder.embed(query)))
    } catch (error) {
      this.#options.onError(error)
    }
  }

  #byWords (request: SearchRequest, accept: Accept, keep = request.weighted ? Infinity : request.top_k): Candidate[] {
    const { query, top_k: limit, min_similarity: minSimilarity } = request
    const hits = this.#text.search(query, { limit, accept, keep })
    const best = hits[0]?.score ?? 1
    const candidates = hits.map(({ id, score }) => ({ id, similarity: round(0.5 + 0.5 * score / best) }))
    return candidates.filter(({ similarity }) => similarity >= minSimilarity)
  }

  /** Searches by vector, and by words for agents that have no vector yet. */
  #byVector (vector: Float32Array, request: SearchRequest, accept: Accept): Candidate[] {
    const limit = request.weighted ? Infinity : request.top_k
    const near = this.#vectors.nearest(vector, { limit, minSimilarity: request.min_similarity, accept })
      .map(({ id, similarity }) => ({ id, similarity: round(similarity) }))
    if (this.#vectors.size >= this.#text.size) return near
    const others = this.#byWords(request, accept, Infinity).filter(({ id }) => !this.#vectors.has(id))
    return near.concat(others)
  }

  #rank (candidates: Candidate[], weighted: boolean): Candidate[] {
    const { metricsOf = () => null } = this.#options
    const weight = (id: string) => {
      const entry = weighted ? this.#replica.get(id) : undefined
      return entry ? weightOf(metricsOf(entry.record)) : 1
    }
    const ranked = candidates.map(candidate => ({ ...candidate, rank: candidate.similarity * weight(candidate.id) }))
    return ranked.sort((a, b) => b.rank - a.rank || (a.id < b.id ? -1 : 1))
  }

  #result ({ id, similarity }: Candidate, weighted: boolean): SearchResult[] {
    const agent = this.#publicView(id)
    if (!agent) return []
    const { name, endpoint: url, capabilities, version, owner, metrics } = agent
    return [{ id, name, url, capabilities, version, owner, similarity, metrics: weighted ? metrics : null }]
  }
}
