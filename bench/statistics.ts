// Medians, percentiles, and the comparison of two checkouts that are measured in turn.
import type { Figure } from './report.js'

const sorted = (values: readonly number[]) => [...values].sort((a, b) => a - b)

export function median (values: readonly number[]): number {
  const half = values.length / 2
  const [low = NaN, high = low] = sorted(values).slice(Math.ceil(half) - 1, Math.floor(half) + 1)
  return (low + high) / 2
}

export function percentile (values: readonly number[], share: number): number {
  return sorted(values)[Math.min(values.length - 1, Math.floor(values.length * share))] ?? NaN
}

/** One run of a part in each checkout, one directly after the other. */
export interface Pair { base: readonly Figure[], current: readonly Figure[] }

/** `ratio` is the median of the pairs' ratios of current to base, `lowest` and `highest` are their spread. */
export interface Comparison {
  name: string
  unit: string
  base: number
  current: number
  ratio: number
  lowest: number
  highest: number
  verdict: 'worse' | 'better' | 'same'
}

const ratioOf = (current: number, base: number) => current === base ? 1 : current / base

function verdictOf (lowest: number, highest: number, lowerIsBetter: boolean): Comparison['verdict'] {
  if (lowest <= 1 && highest >= 1) return 'same'
  return (lowest > 1) === lowerIsBetter ? 'worse' : 'better'
}

function valuesOf (runs: ReadonlyArray<readonly Figure[]>, name: string): number[] {
  return runs.flatMap(figures => figures.find(figure => figure.name === name)?.value ?? [])
}

/** A figure differs when every pair agrees on the direction. Figures that are missing in one of the runs are left out. */
export function compareFigures (pairs: readonly Pair[]): Comparison[] {
  const comparisons: Comparison[] = []
  for (const { name, unit, lowerIsBetter } of pairs[0]?.current ?? []) {
    const base = valuesOf(pairs.map(pair => pair.base), name)
    const current = valuesOf(pairs.map(pair => pair.current), name)
    if (base.length < pairs.length || current.length < pairs.length) continue
    const ratios = current.map((value, index) => ratioOf(value, base[index] ?? NaN))
    const [lowest, highest] = [Math.min(...ratios), Math.max(...ratios)]
    const verdict = verdictOf(lowest, highest, lowerIsBetter)
    comparisons.push({ name, unit, base: median(base), current: median(current), ratio: median(ratios), lowest, highest, verdict })
  }
  return comparisons
}

const valueText = (value: number) => value.toLocaleString('en', { maximumSignificantDigits: 4 })

export function comparisonTable (comparisons: readonly Comparison[]): string {
  const lines = comparisons.map(({ name, unit, base, current, ratio, lowest, highest, verdict }) => {
    const cells = [name, unit, valueText(base), valueText(current), ratio.toFixed(3), `${lowest.toFixed(3)}–${highest.toFixed(3)}`]
    return `| ${[...cells, verdict === 'worse' ? '**worse**' : verdict].join(' | ')} |`
  })
  const head = ['| row | unit | base | this | ratio | spread | verdict |', '| --- | --- | --- | --- | --- | --- | --- |']
  return [...head, ...lines].join('\n')
}
