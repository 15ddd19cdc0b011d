// Duration of the search for the subscribers of a channel among very many patterns.
import { matchesPattern, PatternTrie } from '../src/lib/pattern-trie.js'
import { cost, type Row } from './report.js'
import { percentile } from './statistics.js'

const mostUs = 10
const matches = 20_000
const checked = 20
/** Number of different segments at each depth: few at the root, many runs and agents, few below. */
const vocabulary = [20, 2_000, 50, 200, 10]

/** A generator with the same sequence in every run (Numerical Recipes). */
class Numbers {
  #state: number

  constructor (seed: number) { this.#state = seed }

  below (limit: number): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor(this.#state / 2 ** 32 * limit)
  }
}

function channelOf (numbers: Numbers): string[] {
  return vocabulary.slice(0, 2 + numbers.below(vocabulary.length - 1)).map((size, depth) => `segment-${depth}-${numbers.below(size)}`)
}

/** A channel with `*` for a quarter of its segments; every third pattern ends with `**`. */
function patternOf (numbers: Numbers): string {
  const segments = channelOf(numbers).map(segment => numbers.below(4) === 0 ? '*' : segment)
  if (numbers.below(3) === 0) segments.push('**')
  return segments.join('/')
}

export async function patterns (count: number): Promise<Row[]> {
  const numbers = new Numbers(1)
  const all = new Set<string>()
  while (all.size < count) all.add(patternOf(numbers))
  const trie = new PatternTrie<string>()
  for (const pattern of all) trie.set(pattern, pattern)
  const channels = Array.from({ length: matches }, () => channelOf(numbers).join('/'))
  for (const channel of channels.slice(0, checked)) {
    assertSame(trie.match(channel), [...all].filter(pattern => matchesPattern(pattern, channel)), channel)
  }
  for (const channel of channels) trie.match(channel)
  const times: number[] = []
  let found = 0
  for (const channel of channels) {
    const started = performance.now()
    found += trie.match(channel).length
    times.push((performance.now() - started) * 1000)
  }
  const [p50, p99] = [percentile(times, 0.5), percentile(times, 0.99)]
  return [{
    name: `patterns: match a channel against ${count.toLocaleString('en')} subscriptions, ${(found / matches).toFixed(0)} found on average`,
    ours: `p50 ${p50.toFixed(2)} µs, p99 ${p99.toFixed(2)} µs`,
    peer: '–',
    ratio: '–',
    goal: `< ${mostUs} µs`,
    met: p50 < mostUs,
    figures: [cost('match, p50', 'µs', p50), cost('match, p99', 'µs', p99)]
  }]
}

function assertSame (found: readonly string[], expected: readonly string[], channel: string) {
  if (found.toSorted().join() !== expected.toSorted().join()) throw new Error(`${channel}: the trie does not find the patterns that match`)
}
