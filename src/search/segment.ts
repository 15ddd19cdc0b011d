import { createHash } from 'node:crypto'
import MiniSearch from 'minisearch'
import type { Fields } from './fields.js'
import { isUnspaced, tokenize } from './tokens.js'

export interface Hit { id: string, score: number }

interface Document extends Fields { id: string }

const boost = { name: 4, capabilities: 3, agent_type: 2, features: 2, context_brief: 1.5, metadata: 1, ai_context: 0.8 }
const fields = Object.keys(boost) as Array<keyof Fields>

/** Documents up to which no word is too common to be looked for. */
const fewDocuments = 1_000
/** Documents that the words of a query may have together; each costs about a microsecond. */
const maxMatches = 10_000
const minPrefixLength = 3
const minFuzzyLength = 5
/** Each costs a walk through a good part of the vocabulary. */
const maxFuzzyTerms = 6

const digestOf = (document: Fields) => createHash('sha1').update(fields.map(field => document[field]).join('\0')).digest('base64')

/**
 * A full-text index (minisearch, BM25+) that knows which texts are in it and how common each word is. What is replaced
 * leaves traces behind that only a new segment is free of: minisearch's own vacuum fails when a document is added
 * while it runs.
 */
export class Segment {
  readonly #index = new MiniSearch<Document>({
    fields,
    tokenize: text => this.#tokenize(text),
    processTerm: term => term,
    autoVacuum: false,
    searchOptions: { boost, tokenize: query => query.split(' ') }
  })

  readonly #digests = new Map<string, string>()
  /** In how many of the documents that were ever added a word is. */
  readonly #seen = new Map<string, number>()
  #added = 0
  /** Words of the document that is being added. */
  #words = new Set<string>()

  get size () { return this.#digests.size }
  /** Documents that were replaced or removed and still take room. */
  get stale () { return this.#added - this.#digests.size }

  ids (): Iterable<string> {
    return this.#digests.keys()
  }

  /** Puts a text in place of the one of the same id; the same again does nothing. */
  put (id: string, text: Fields): void {
    const digest = digestOf(text)
    if (this.#digests.get(id) === digest) return
    this.remove(id)
    this.#digests.set(id, digest)
    this.#index.add({ ...text, id })
    this.#count()
  }

  remove (id: string): void {
    if (this.#digests.delete(id)) this.#index.discard(id)
  }

  /** Terms as they are, and the beginning of words for the last of them. @returns best first */
  find (terms: readonly string[]): Hit[] {
    const last = terms.at(-1)!
    const worth = this.#worthwhile(terms)
    return this.#run(worth, { prefix: term => term === last && (term.length >= minPrefixLength || isUnspaced(term)) })
  }

  /** What `find` left out because most documents have it, the rarest of that. @returns best first */
  findCommon (terms: readonly string[]): Hit[] {
    const worth = new Set(this.#worthwhile(terms))
    return this.#run(this.#rarest(terms.filter(term => !worth.has(term)), 1), {})
  }

  /** Terms of five letters and more with one wrong letter. @returns best first */
  findSimilar (terms: readonly string[]): Hit[] {
    const long = this.#worthwhile(terms).filter(term => term.length >= minFuzzyLength)
    return this.#run(this.#rarest(long, maxFuzzyTerms), { fuzzy: 1 })
  }

  #run (terms: readonly string[], options: { prefix?: (term: string) => boolean, fuzzy?: number }): Hit[] {
    if (terms.length === 0) return []
    return this.#index.search(terms.join(' '), options)
  }

  /** What is looked for: the rarest words first, as far as the work allows; the commonest decide nothing and cost the most. */
  #worthwhile (terms: readonly string[]): readonly string[] {
    if (this.#added <= fewDocuments) return terms
    let matches = 0
    const kept = new Set(this.#rarest(terms, terms.length).filter(term => {
      const isFree = matches === 0
      const seen = this.#seen.get(term) ?? 0
      if (!isFree && (seen > this.#added / 2 || matches + seen > maxMatches)) return false
      matches += seen
      return true
    }))
    return terms.filter(term => kept.has(term))
  }

  #rarest (terms: readonly string[], limit: number): string[] {
    const seen = (term: string) => this.#seen.get(term) ?? 0
    return [...terms].sort((a, b) => seen(a) - seen(b)).slice(0, limit)
  }

  #tokenize (text: string): string[] {
    const tokens = tokenize(text)
    for (const token of tokens) this.#words.add(token)
    return tokens
  }

  #count () {
    this.#added++
    for (const word of this.#words) this.#seen.set(word, (this.#seen.get(word) ?? 0) + 1)
    this.#words = new Set()
  }
}
