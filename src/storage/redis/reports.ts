import { applyMetrics, type StoredMetrics } from '../agent-metrics.js'
import type { ReportCommand } from '../agent-store.js'
import { metricsText, readMetrics, writeMetrics } from './records.js'

/** What became of a report: the revision of its agent and its metrics, or why not. */
export type Reported = { n: number, seen: number, text: string, metrics: StoredMetrics } | { n: -1 | -2 }

interface Waiting { command: ReportCommand, resolve: (reported: Reported) => void, reject: (error: unknown) => void }

/** Reports of one instance of one agent that are applied together. */
interface Group { id: string, incarnation: number | undefined, expected: string, waiting: Waiting[], results: StoredMetrics[] }

/** Answers for each group the revision, a refusal, or what is stored when that is not what was expected. */
export type SendReports = (args: string[]) => Promise<{ now: number, results: ReadonlyArray<number | string> }>

const groupsPerCall = 250

/**
 * Applies reports to what the store holds, which may be newer than what is known here: whoever was overtaken computes
 * again. Reports of an agent wait for each other, those of one tick go together.
 */
export class Reports {
  readonly #known: (id: string) => StoredMetrics | null
  readonly #send: SendReports
  readonly #queues = new Map<string, Waiting[]>()
  readonly #busy = new Set<string>()
  #scheduled = false

  constructor (known: (id: string) => StoredMetrics | null, send: SendReports) {
    this.#known = known
    this.#send = send
  }

  add (command: ReportCommand): Promise<Reported> {
    return new Promise((resolve, reject) => {
      const queue = this.#queues.get(command.id)
      if (queue) queue.push({ command, resolve, reject })
      else this.#queues.set(command.id, [{ command, resolve, reject }])
      this.#schedule()
    })
  }

  #schedule () {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      const groups = [...this.#queues.keys()].filter(id => !this.#busy.has(id)).map(id => this.#take(id))
      for (let first = 0; first < groups.length; first += groupsPerCall) this.#apply(groups.slice(first, first + groupsPerCall))
    })
  }

  /** The next reports of an agent that are of the same instance. */
  #take (id: string): Group {
    const queue = this.#queues.get(id)!
    const { incarnation } = queue[0]!.command
    const end = queue.findIndex(({ command }) => command.incarnation !== incarnation)
    const waiting = queue.splice(0, end === -1 ? queue.length : end)
    if (queue.length === 0) this.#queues.delete(id)
    this.#busy.add(id)
    return { id, incarnation, waiting, ...compute(waiting, this.#known(id)) }
  }

  async #apply (groups: Group[]): Promise<void> {
    try {
      const { now, results } = await this.#send(groups.flatMap(argumentsOf))
      for (const [index, group] of groups.entries()) this.#settle(group, results[index]!, now)
    } catch (error) {
      for (const group of groups) this.#finish(group, ({ reject }) => { reject(error) })
    }
  }

  #settle (group: Group, result: number | string, now: number) {
    if (typeof result === 'string') {
      this.#apply([{ ...group, ...compute(group.waiting, result === '' ? null : readMetrics(result)) }])
    } else if (result < 0) {
      this.#finish(group, ({ resolve }) => { resolve({ n: result as -1 | -2 }) })
    } else {
      this.#finish(group, ({ resolve }, index) => { resolve(reported(result, now, group.results[index]!)) })
    }
  }

  #finish ({ id, waiting }: Group, settle: (waiting: Waiting, index: number) => void) {
    this.#busy.delete(id)
    waiting.forEach(settle)
    if (this.#queues.size > 0) this.#schedule()
  }
}

function compute (waiting: readonly Waiting[], before: StoredMetrics | null): Pick<Group, 'expected' | 'results'> {
  const results: StoredMetrics[] = []
  for (const { command } of waiting) results.push(applyMetrics(results.at(-1) ?? before, command.update, 0))
  return { expected: metricsText(before), results }
}

function argumentsOf ({ id, incarnation, expected, results }: Group): string[] {
  return [id, String(incarnation ?? ''), expected, writeMetrics(results.at(-1)!)]
}

function reported (n: number, now: number, values: StoredMetrics): Reported {
  const text = `${now}\n${writeMetrics(values)}`
  return { n, seen: now, text, metrics: readMetrics(text) }
}
