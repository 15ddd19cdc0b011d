import fc from 'fast-check'
import t from 'tap'
import { isWithin, matchesPattern, PatternTrie } from '../../../src/lib/pattern-trie.js'

/** The meaning of a pattern in its simplest form. */
function naivelyMatches (pattern: string, channel: string): boolean {
  const [wanted, given] = [pattern.split('/'), channel.split('/')]
  const hasRest = wanted.at(-1) === '**'
  if (hasRest ? given.length < wanted.length : given.length !== wanted.length) return false
  return wanted.every((segment, index) => segment === '*' || segment === given[index] || (hasRest && index === wanted.length - 1))
}

const segment = fc.constantFrom('a', 'b', 'c.d', 'ü')
const pattern = fc.array(fc.oneof(segment, fc.constant('*')), { maxLength: 3 })
  .chain(segments => fc.constantFrom('a', '*', '**').map(last => [...segments, last].join('/')))
const channel = fc.array(segment, { minLength: 1, maxLength: 4 }).map(segments => segments.join('/'))
const step = fc.record({ isSet: fc.boolean(), pattern, value: fc.nat(3) })

t.test('PatternTrie: finds what a naive matcher finds after any sequence of set and delete', async t => {
  t.doesNotThrow(() => fc.assert(fc.property(fc.array(step, { maxLength: 40 }), fc.array(channel, { minLength: 1, maxLength: 5 }), (steps, channels) => {
    const trie = new PatternTrie<number>()
    const model = new Map<string, number>()
    for (const { isSet, pattern, value } of steps) {
      if (isSet) trie.set(pattern, value)
      else if (trie.delete(pattern) !== model.has(pattern)) return false
      if (isSet) model.set(pattern, value)
      else model.delete(pattern)
      if (trie.get(pattern) !== model.get(pattern)) return false
    }
    return trie.size === model.size && channels.every(channel => {
      const wanted = [...model].flatMap(([pattern, value]) => naivelyMatches(pattern, channel) ? [value] : []).sort()
      const one = trie.find(channel)
      return trie.match(channel).sort().join() === wanted.join() && (one === undefined ? wanted.length === 0 : wanted.includes(one))
    })
  }), { numRuns: 2000 }))
})

t.test('matchesPattern: agrees with a naive matcher', async t => {
  t.doesNotThrow(() => fc.assert(fc.property(pattern, channel, (pattern, channel) => {
    return matchesPattern(pattern, channel) === naivelyMatches(pattern, channel)
  }), { numRuns: 2000 }))
})

t.test('isWithin: a granted pattern matches all channels of a pattern within it', async t => {
  t.doesNotThrow(() => fc.assert(fc.property(pattern, pattern, channel, (granted, pattern, channel) => {
    return !isWithin(granted, pattern) || !matchesPattern(pattern, channel) || matchesPattern(granted, channel)
  }), { numRuns: 2000 }))
})

t.test('PatternTrie: one value per pattern, and nothing after its deletion', async t => {
  const trie = new PatternTrie<string>()
  for (const pattern of ['a/*', 'a/*', 'a/b/**', '**', '*']) trie.set(pattern, pattern)
  t.same([trie.size, trie.get('a/*'), trie.get('a'), trie.get('a/b/c')], [4, 'a/*', undefined, undefined])
  t.equal(trie.find('x'), '**')
  t.same(['**', '*', '*', 'b/**', 'a'].map(pattern => trie.delete(pattern)), [true, true, false, false, false])
  t.same(['x', 'a/x', 'a/b', 'a/b/c', 'a'].map(channel => trie.find(channel)), [undefined, 'a/*', 'a/*', 'a/b/**', undefined])
  trie.set('a/*', 'other')
  t.same([trie.size, trie.match('a/b')], [2, ['other']])
  for (const pattern of ['a/*', 'a/b/**']) t.equal(trie.delete(pattern), true)
  t.same([trie.size, trie.find('a/x'), trie.match('a/b/c')], [0, undefined, []])
  trie.set('a/*', 'again')
  trie.clear()
  t.same([trie.size, trie.find('a/x')], [0, undefined])
})

t.test('PatternTrie: finds a match among a hundred thousand patterns in microseconds', async t => {
  const trie = new PatternTrie<number>()
  for (let n = 0; n < 100_000; n++) trie.set(n % 2 ? `workflows/run-${n}/*` : `agents/agent-${n % 1000}/${n}/**`, n)
  const matches = 20_000
  let found = 0
  const started = performance.now()
  for (let n = 0; n < matches; n++) found += trie.match(`workflows/run-${2 * n + 1}/subtasks`).length
  const each = (performance.now() - started) * 1000 / matches
  t.equal(found, matches)
  t.ok(each < 50, `${each.toFixed(2)} µs`)
})
