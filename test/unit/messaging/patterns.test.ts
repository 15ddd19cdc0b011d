import fc from 'fast-check'
import t from 'tap'
import { PatternIndex } from '../../../src/lib/pattern-index.js'
import { matchesPattern } from '../../../src/lib/pattern-rules.js'

/** What a pattern means, said as simply as can be. */
function naivelyMatches (pattern: string, channel: string): boolean {
  const [wanted, given] = [pattern.split('/'), channel.split('/')]
  const hasRest = wanted.at(-1) === '**'
  if (hasRest ? given.length < wanted.length : given.length !== wanted.length) return false
  return wanted.every((segment, index) => segment === '*' || segment === given[index] || (hasRest && index === wanted.length - 1))
}

const segment = fc.constantFrom('a', 'b', 'c.d', 'ü')
const pattern = fc.array(fc.oneof(segment, fc.constant('*')), { maxLength: 3 }).chain(segments => fc.constantFrom('a', '*', '**').map(last => [...segments, last].join('/')))
const channel = fc.array(segment, { minLength: 1, maxLength: 4 }).map(segments => segments.join('/'))
const step = fc.record({ isAdded: fc.boolean(), pattern, subscriber: fc.nat(3) })

const found = (index: PatternIndex<number>, channel: string) => index.match(channel).flatMap(subscribers => [...subscribers]).sort()

t.test('the index finds who a naive matcher finds, whatever was added and deleted', async t => {
  t.doesNotThrow(() => fc.assert(fc.property(fc.array(step, { maxLength: 40 }), fc.array(channel, { minLength: 1, maxLength: 5 }), (steps, channels) => {
    const index = new PatternIndex<number>()
    const model = new Map<string, Set<number>>()
    for (const { isAdded, pattern, subscriber } of steps) {
      const known = model.get(pattern) ?? new Set()
      model.set(pattern, known)
      const isEdge = isAdded ? known.size === 0 || (known.size === 1 && known.has(subscriber)) : known.size === 1 && known.has(subscriber)
      if (isAdded) known.add(subscriber)
      else known.delete(subscriber)
      if ((isAdded ? index.add(pattern, subscriber) : index.delete(pattern, subscriber)) !== isEdge) return false
    }
    const size = [...model.values()].reduce((sum, subscribers) => sum + subscribers.size, 0)
    return index.size === size && channels.every(channel => {
      const wanted = [...model].flatMap(([pattern, subscribers]) => naivelyMatches(pattern, channel) ? [...subscribers] : []).sort()
      return wanted.join() === found(index, channel).join()
    })
  }), { numRuns: 2000 }))
})

t.test('one pattern matches what a naive matcher says', async t => {
  t.doesNotThrow(() => fc.assert(fc.property(pattern, channel, (pattern, channel) => matchesPattern(pattern, channel) === naivelyMatches(pattern, channel)), { numRuns: 2000 }))
})

t.test('what was deleted leaves nothing behind, and what was never there is not deleted', async t => {
  const index = new PatternIndex<string>()
  for (const name of ['a/*/c', 'a/**', '**']) {
    t.equal(index.delete(name, 'x'), false)
    t.equal(index.add(name, 'x'), true)
    t.equal(index.add(name, 'y'), false)
    t.equal(index.delete(name, 'x'), false)
    t.equal(index.delete(name, 'x'), false)
  }
  t.same(index.match('a/b/c').map(subscribers => [...subscribers]), [['y'], ['y'], ['y']])
  for (const name of ['a/*/c', 'a/**', '**']) t.equal(index.delete(name, 'y'), true)
  t.same([index.size, index.match('a/b/c')], [0, []])
})

t.test('among a hundred thousand subscriptions a match is found in microseconds', async t => {
  const index = new PatternIndex<number>()
  for (let n = 0; n < 100_000; n++) index.add(n % 2 ? `workflows/run-${n}/*` : `agents/agent-${n % 1000}/${n}/**`, n)
  const matches = 20_000
  let sets = 0
  const started = performance.now()
  for (let n = 0; n < matches; n++) sets += index.match(`workflows/run-${2 * n + 1}/subtasks`).length
  const each = (performance.now() - started) * 1000 / matches
  t.equal(sets, matches)
  t.ok(each < 50, `${each.toFixed(2)} µs`)
})
