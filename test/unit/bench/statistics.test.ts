import t from 'tap'
import type { Figure } from '../../../bench/report.js'
import { compareFigures, comparisonTable, median, percentile } from '../../../bench/statistics.js'

const time = (value: number): Figure => ({ name: 'part: time', unit: 'ms', value, lowerIsBetter: true })
const rate = (value: number): Figure => ({ name: 'part: rate', unit: '/s', value, lowerIsBetter: false })

/** Pairs of runs with one figure each, as [base, current]. */
const pairsOf = (figure: (value: number) => Figure, values: ReadonlyArray<readonly [base: number, current: number]>) =>
  values.map(([base, current]) => ({ base: [figure(base)], current: [figure(current)] }))

const verdictOf = (pairs: Parameters<typeof compareFigures>[0]) => compareFigures(pairs).map(({ verdict }) => verdict)

t.test('median: the middle value, or the mean of the two middle values', async t => {
  t.equal(median([3, 1, 2]), 2)
  t.equal(median([4, 1, 2, 3]), 2.5)
  t.equal(median([7]), 7)
  t.ok(Number.isNaN(median([])))
})

t.test('percentile: the value below which the share of the values lies', async t => {
  t.equal(percentile([4, 2, 1, 3], 0.5), 3)
  t.equal(percentile([1, 2, 3], 1), 3)
  t.ok(Number.isNaN(percentile([], 0.5)))
})

t.test('compare: the ratio is the median of the ratios of the pairs, not the ratio of the medians', async t => {
  const [comparison] = compareFigures(pairsOf(time, [[100, 110], [200, 240], [10, 13]]))
  t.same(comparison, {
    name: 'part: time', unit: 'ms', base: 100, current: 110, ratio: 1.2, lowest: 1.1, highest: 1.3, verdict: 'worse'
  })
})

t.test('compare: a figure differs only when every pair agrees on the direction', async t => {
  t.same(verdictOf(pairsOf(time, [[10, 11], [10, 12]])), ['worse'])
  t.same(verdictOf(pairsOf(time, [[10, 9], [10, 8]])), ['better'])
  t.same(verdictOf(pairsOf(rate, [[10, 11], [10, 12]])), ['better'])
  t.same(verdictOf(pairsOf(rate, [[10, 9], [10, 8]])), ['worse'])
  t.same(verdictOf(pairsOf(time, [[10, 15], [10, 9]])), ['same'])
  t.same(verdictOf(pairsOf(time, [[10, 15], [10, 10]])), ['same'])
})

t.test('compare: two values of zero are equal, and a figure that a run lacks is left out', async t => {
  t.equal(compareFigures(pairsOf(time, [[0, 0]]))[0]?.ratio, 1)
  t.same(compareFigures([{ base: [time(1)], current: [time(1), rate(1)] }]).map(({ name }) => name), ['part: time'])
  t.same(compareFigures([{ base: [time(1)], current: [time(1)] }, { base: [time(1)], current: [] }]), [])
  t.same(compareFigures([]), [])
})

t.test('compare: the table has a row for each figure and marks those that are worse', async t => {
  const comparisons = compareFigures([{ base: [time(2), rate(1234.56)], current: [time(3), rate(1234.56)] }])
  t.equal(comparisonTable(comparisons), [
    '| row | unit | base | this | ratio | spread | verdict |',
    '| --- | --- | --- | --- | --- | --- | --- |',
    '| part: time | ms | 2 | 3 | 1.500 | 1.500–1.500 | **worse** |',
    '| part: rate | /s | 1,235 | 1,235 | 1.000 | 1.000–1.000 | same |'
  ].join('\n'))
})
