import { createHash } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import MiniSearch from 'minisearch'
import type { AgentInfo } from '../protocol/schemas/agent.js'

/** The searchable text of an agent, one string per field. */
export interface Fields {
  readonly name: string
  readonly context_brief: string
  readonly capabilities: string
  readonly agent_type: string
  readonly features: string
  readonly metadata: string
  readonly ai_context: string
}

/** The schema does not limit lists of strings in the metadata; text after this many characters is not searchable. */
const maxMetadataLength = 20_000

const isString = (value: unknown): value is string => typeof value === 'string'

function metadataText (metadata: AgentInfo['metadata']): string {
  const texts = Object.values(metadata).flatMap((value: unknown) => (Array.isArray(value) ? value : [value]).filter(isString))
  return texts.join(' ').slice(0, maxMetadataLength)
}

export function fieldsOf (agent: Pick<AgentInfo, keyof Fields>): Fields {
  return {
    name: agent.name,
    context_brief: agent.context_brief,
    capabilities: agent.capabilities.join(' '),
    agent_type: agent.agent_type,
    features: agent.features.join(' '),
    metadata: metadataText(agent.metadata),
    ai_context: agent.ai_context ?? ''
  }
}

/** All fields as one text, from which the vector of the agent is made. */
export function embeddedText (fields: Fields): string {
  const { name, context_brief: brief, capabilities, agent_type: type, features, metadata, ai_context: context } = fields
  return [name, brief, capabilities, type, features, metadata, context].filter(Boolean).join(' ')
}

/** Longer words are truncated: they do not occur in queries, and each would add a branch to the index. */
const maxWordLength = 40

const beyondAscii = /[\u0080-\uffff]/
const asciiWords = /[a-z0-9]+/g
const words = /[\p{L}\p{M}\p{N}]+/gu
/** Runs of the scripts that do not separate words by spaces, and the runs between them. */
const runs = /[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}]+|[^\p{scx=Han}\p{scx=Hira}\p{scx=Kana}]+/gu
const unspaced = /^[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}]/u
const latinMarks = /[\u0300-\u036f]/g

/** Lower case, with compatibility forms decomposed and Latin accents removed; combining marks of other scripts stay. */
const fold = (text: string) => text.normalize('NFKD').replace(latinMarks, '').normalize('NFC').toLowerCase()

const isWord = (word: string) => word.length > 1

/** Overlapping pairs of characters, because word boundaries are unknown; a single character is its own token. */
function pairs (run: string): string[] {
  const characters = [...run]
  if (characters.length === 1) return characters
  return characters.slice(1).map((character, index) => characters[index] + character)
}

function tokensOfWord (word: string): string[] {
  if (!beyondAscii.test(word)) return isWord(word) ? [word.slice(0, maxWordLength)] : []
  return (word.match(runs) ?? []).flatMap(run => unspaced.test(run) ? pairs(run) : isWord(run) ? [run.slice(0, maxWordLength)] : [])
}

/**
 * Splits a text into the tokens that are indexed and searched: words of letters and digits of any script with case and
 * accents folded, without one-letter words; Chinese and Japanese text as pairs of characters.
 */
export function tokenize (text: string): string[] {
  if (beyondAscii.test(text)) return (fold(text).match(words) ?? []).flatMap(tokensOfWord)
  const found = text.toLowerCase().match(asciiWords) ?? []
  return found.filter(isWord).map(word => word.slice(0, maxWordLength))
}

/** Whether a token belongs to a script without spaces between words. */
export const isUnspaced = (token: string): boolean => unspaced.test(token)

interface Hit { id: string, score: number }

interface Document extends Fields { id: string }

const boost: Record<keyof Fields, number> = {
  name: 4, capabilities: 3, agent_type: 2, features: 2, context_brief: 1.5, metadata: 1, ai_context: 0.8
}
const fields = ['name', 'capabilities', 'agent_type', 'features', 'context_brief', 'metadata', 'ai_context'] as const

/** Up to this number of documents, every word of a query is searched, however common it is. */
const fewDocuments = 1_000
/** Limit of the documents that the words of one query match; each costs about a microsecond. */
const maxMatches = 10_000
const minPrefixLength = 3
const minFuzzyLength = 5
/** Each fuzzy term walks through a large part of the vocabulary. */
const maxFuzzyTerms = 6

function digestOf (document: Fields): string {
  return createHash('sha1').update(fields.map(field => document[field]).join('\0')).digest('base64')
}

/**
 * A full-text index (minisearch, BM25+) that also records which texts it contains and how common each word is. Replaced
 * and removed documents keep occupying memory until the segment is rebuilt: minisearch's own vacuum fails when a document
 * is added while it runs.
 */
class Segment {
  readonly #index = new MiniSearch<Document>({
    fields: [...fields],
    tokenize: text => this.#tokenize(text),
    processTerm: term => term,
    autoVacuum: false,
    searchOptions: { boost, tokenize: query => query.split(' ') }
  })

  readonly #digests = new Map<string, string>()
  /** Number of documents, among all that were ever added, that contain a word. */
  readonly #frequencies = new Map<string, number>()
  #added = 0
  /** Words of the document that is being indexed. */
  #words = new Set<string>()

  get size () { return this.#digests.size }
  /** Documents that were replaced or removed and still occupy memory. */
  get stale () { return this.#added - this.#digests.size }

  ids (): Iterable<string> {
    return this.#digests.keys()
  }

  /** Adds a text, or replaces the text of the same id; does nothing if the text is the same. */
  set (id: string, text: Fields): void {
    const digest = digestOf(text)
    if (this.#digests.get(id) === digest) return
    this.delete(id)
    this.#digests.set(id, digest)
    this.#index.add({ ...text, id })
    this.#count()
  }

  delete (id: string): void {
    if (this.#digests.delete(id)) this.#index.discard(id)
  }

  /** Finds exact terms; the last term also matches as a prefix. @returns best first */
  find (terms: readonly string[]): Hit[] {
    const last = terms.at(-1)
    const selected = this.#selective(terms)
    return this.#run(selected, { prefix: term => term === last && (term.length >= minPrefixLength || isUnspaced(term)) })
  }

  /** Finds the rarest of the terms that `find` skips because most documents contain them. @returns best first */
  findCommon (terms: readonly string[]): Hit[] {
    const selected = new Set(this.#selective(terms))
    return this.#run(this.#rarest(terms.filter(term => !selected.has(term)), 1), {})
  }

  /** Finds terms of five and more letters with one wrong letter. @returns best first */
  findSimilar (terms: readonly string[]): Hit[] {
    const long = this.#selective(terms).filter(term => term.length >= minFuzzyLength)
    return this.#run(this.#rarest(long, maxFuzzyTerms), { fuzzy: 1 })
  }

  #run (terms: readonly string[], options: { prefix?: (term: string) => boolean, fuzzy?: number }): Hit[] {
    if (terms.length === 0) return []
    return this.#index.search(terms.join(' '), options)
  }

  /** The terms to search, chosen from the rarest until `maxMatches` is reached: common terms rank little and cost most. */
  #selective (terms: readonly string[]): readonly string[] {
    if (this.#added <= fewDocuments) return terms
    let matches = 0
    const kept = new Set(this.#rarest(terms, terms.length).filter(term => {
      const frequency = this.#frequencies.get(term) ?? 0
      if (matches > 0 && (frequency > this.#added / 2 || matches + frequency > maxMatches)) return false
      matches += frequency
      return true
    }))
    return terms.filter(term => kept.has(term))
  }

  #rarest (terms: readonly string[], limit: number): string[] {
    const frequency = (term: string) => this.#frequencies.get(term) ?? 0
    return [...terms].sort((a, b) => frequency(a) - frequency(b)).slice(0, limit)
  }

  #tokenize (text: string): string[] {
    const tokens = tokenize(text)
    for (const token of tokens) this.#words.add(token)
    return tokens
  }

  #count () {
    this.#added++
    for (const word of this.#words) this.#frequencies.set(word, (this.#frequencies.get(word) ?? 0) + 1)
    this.#words = new Set()
  }
}

interface TextSearch {
  /** If fewer hits are found, similar words are searched too. */
  limit: number
  accept: (id: string) => boolean
  /** Maximum number of hits returned; default: `limit`. */
  keep?: number
}

const maxTerms = 16
const maxQueryLength = 4_000
const sliceMs = 5
/**
 * Pause between two slices, so that indexing uses at most a fifth of one core. The pauses grow while the event loop is
 * busy; a search drains the changes that it needs.
 */
const pauseMs = 4 * sliceMs
const maxPauseMs = 16 * pauseMs
const busyUtilization = 0.9
const minStale = 1_000

const byScore = (a: Hit, b: Hit) => b.score - a.score || (a.id < b.id ? -1 : 1)

const nextTurn = () => new Promise<void>(resolve => { setImmediate(resolve) })

/** The best `keep` accepted hits of a sorted list; hits with the same score are ordered by id. */
function accepted (hits: readonly Hit[], accept: (id: string) => boolean, keep: number): Hit[] {
  const kept: Hit[] = []
  for (const { id, score } of hits) {
    const last = kept[keep - 1]
    if (last && score < last.score) break
    if (accept(id)) kept.push({ id, score })
  }
  return kept.sort(byScore).slice(0, keep)
}

/** Hits of a second search that the first did not find, scaled so that all rank after the hits of the first. */
function rankBelow (first: readonly Hit[], second: readonly Hit[]): Hit[] {
  const known = new Set(first.map(hit => hit.id))
  const rest = second.filter(hit => !known.has(hit.id))
  const [worst, best] = [first.at(-1), rest[0]]
  if (!worst || !best) return rest
  const factor = 0.9 * worst.score / best.score
  return rest.map(({ id, score }) => ({ id, score: score * factor }))
}

interface NextSegment { readonly segment: Segment, readonly missing: Iterator<string, undefined> }

/** Full-text search over agents. Changes are indexed asynchronously in slices of at most 5 ms. */
export class TextIndex {
  readonly #textOf: (id: string) => Fields | undefined
  readonly #dirty = new Set<string>()
  #segment = new Segment()
  /** The rebuilt segment without stale documents, and the ids that are not copied yet. */
  #next: NextSegment | undefined
  #timer: NodeJS.Timeout | undefined
  #pauseMs = pauseMs
  #utilization = performance.eventLoopUtilization()
  #isClosed = false

  /** @param textOf returns the text of an agent, or undefined if the agent must not be found */
  constructor (textOf: (id: string) => Fields | undefined) {
    this.#textOf = textOf
  }

  /** Agents that can be found. */
  get size () { return this.#segment.size }
  /** Documents that were replaced or removed and still occupy memory. */
  get stale () { return this.#segment.stale }
  /** Number of agents whose change is not indexed yet. */
  get pending () { return this.#dirty.size }

  /** Marks an agent whose text may have changed or gone. */
  change (id: string): void {
    this.#dirty.add(id)
    this.#schedule()
  }

  /** Indexes at most `limit` of the pending changes and yields to the event loop after every slice. */
  async drain (limit = 1_000): Promise<void> {
    let left = Math.min(limit, this.#dirty.size)
    while (left > 0 && this.#dirty.size > 0 && !this.#isClosed) {
      left -= this.#slice(left)
      if (left > 0) await nextTurn()
    }
  }

  /**
   * Finds agents that contain words of the query, best first, ties by id. The last word also matches as a prefix. If
   * there are fewer than `limit` hits, words with one wrong letter are searched too and rank after the others.
   */
  search (query: string, { limit, accept, keep = limit }: TextSearch): Hit[] {
    const terms = [...new Set(tokenize(query.slice(0, maxQueryLength)))].slice(0, maxTerms)
    if (terms.length === 0) return []
    const exact = accepted(this.#segment.find(terms), accept, keep)
    const first = exact.length > 0 ? exact : accepted(this.#segment.findCommon(terms), accept, keep)
    if (first.length >= limit) return first
    return [...first, ...rankBelow(first, accepted(this.#segment.findSimilar(terms), accept, keep))].slice(0, keep)
  }

  close (): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
    this.#dirty.clear()
    this.#next = undefined
  }

  #schedule () {
    if (this.#timer || this.#isClosed) return
    this.#timer = setTimeout(() => this.#work(), this.#pauseMs).unref()
  }

  /** Sets the next pause by the utilization of the event loop since the last slice. */
  #adjustPause () {
    const since = this.#utilization
    this.#utilization = performance.eventLoopUtilization()
    const { utilization } = performance.eventLoopUtilization(this.#utilization, since)
    this.#pauseMs = utilization > busyUtilization ? Math.min(2 * this.#pauseMs, maxPauseMs) : pauseMs
  }

  #work () {
    this.#timer = undefined
    this.#adjustPause()
    this.#slice(Infinity)
    if (this.#dirty.size > 0 || this.#next) this.#schedule()
  }

  /** Indexes for at most 5 ms. @returns the number of agents indexed */
  #slice (limit: number): number {
    const end = performance.now() + sliceMs
    let done = 0
    for (const id of this.#dirty) {
      if (done === limit || performance.now() >= end) return done
      this.#dirty.delete(id)
      this.#index(id)
      done++
    }
    while (this.#next && performance.now() < end) this.#rebuild(this.#next)
    return done
  }

  #index (id: string) {
    const text = this.#textOf(id)
    for (const segment of [this.#segment, this.#next?.segment]) {
      if (text) segment?.set(id, text)
      else segment?.delete(id)
    }
    const { stale, size } = this.#segment
    if (stale > Math.max(minStale, size)) this.#next ??= { segment: new Segment(), missing: [...this.#segment.ids()].values() }
  }

  /** Copies one agent into the next segment, which replaces the current one when the copy is complete. */
  #rebuild ({ segment, missing }: NextSegment) {
    const { done, value: id } = missing.next()
    if (done) {
      this.#segment = segment
      this.#next = undefined
      return
    }
    const text = this.#textOf(id)
    if (text) segment.set(id, text)
  }
}
