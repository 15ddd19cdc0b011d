import type { Clock } from '../lib/clock.js'
import { round } from './frame.js'

/** What this process uses. */
export interface ProcessUse {
  /** Percent of one core since the sample before, with two decimals; threads of the system can take it over 100. */
  cpu: number
  /** Resident memory. */
  memory_bytes: number
  uptime_seconds: number
}

/** What Node knows of this process; time of the processor in microseconds. */
export type ProcessFigures = Pick<NodeJS.Process, 'cpuUsage' | 'uptime'> & { memoryUsage: { rss (): number } }

interface Sample { readonly at: number, readonly busyMs: number, readonly use: ProcessUse }

/** Below this two samples are too close for a rate. */
const leastSpacingMs = 250

/** The first sample is over the whole life of the process. Nothing is read between two calls. */
export class ProcessSampler {
  readonly #now: Clock
  readonly #figures: ProcessFigures
  #last: Sample | undefined

  constructor ({ now, figures = process }: { now: Clock, figures?: ProcessFigures }) {
    this.#now = now
    this.#figures = figures
  }

  sample (): ProcessUse {
    const at = this.#now()
    if (!this.#last || at - this.#last.at >= leastSpacingMs) this.#last = this.#read(at)
    return this.#last.use
  }

  #read (at: number): Sample {
    const { user, system } = this.#figures.cpuUsage()
    const uptime = this.#figures.uptime()
    const busyMs = (user + system) / 1000
    const before = this.#last ?? { at: at - 1000 * uptime, busyMs: 0 }
    const cpu = round(100 * (busyMs - before.busyMs) / Math.max(1, at - before.at), 2)
    return { at, busyMs, use: { cpu, memory_bytes: this.#figures.memoryUsage.rss(), uptime_seconds: Math.floor(uptime) } }
  }
}
