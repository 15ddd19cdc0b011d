// Settings of a run, and the rows and values that it results in.
import type { Chart } from './chart.js'

export const rounds = Number(process.env.BENCH_ROUNDS ?? 5)
export const seconds = Number(process.env.BENCH_SECONDS ?? 3)

/** One measured value of our server. `--compare` matches values by part and name: keep a name when the text of its row changes. */
export interface Figure { name: string, unit: string, value: number, lowerIsBetter: boolean }

export const cost = (name: string, unit: string, value: number): Figure => ({ name, unit, value, lowerIsBetter: true })
export const rate = (name: string, value: number): Figure => ({ name, unit: '/s', value, lowerIsBetter: false })

/**
 * One line of the report: the subject, the results and the goal. Some rows also have a chart.
 * `figures` are the values in `ours`; rows that compare the same values with another peer have none.
 */
export interface Row {
  name: string
  ours: string
  peer: string
  ratio: string
  goal: string
  met: boolean
  chart?: Chart
  figures?: Figure[]
}

export const us = (value: number) => `${value.toFixed(2)} µs`
export const number = (value: number) => Math.round(value).toLocaleString('en')
