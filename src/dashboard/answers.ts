import type { Clock } from '../lib/clock.js'
import type { LogRing } from './logs.js'
import { Repeats } from './repeats.js'
import type { RequestStats } from './request-stats.js'

/** An HTTP request that was answered. */
export interface Answer {
  method: string
  /** The route, never the path, which is anybody's choice; undefined where there was none. */
  endpoint?: string
  statusCode: number
  elapsedMs: number
  address?: string
  requestId?: string
}

/** An answer of which all that may be a label is bounded. */
export interface LabelledAnswer extends Answer { endpoint: string }

export interface AnswersOptions {
  now: Clock
  logs: LogRing
  stats: RequestStats
  /** Time after which an answer was slow (ms). */
  slowMs: number
}

/** Methods that are told apart where no route is met. */
const methods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

const isLabelled = (answer: Answer): answer is LabelledAnswer => answer.endpoint !== undefined

function labelled (answer: Answer): LabelledAnswer {
  if (isLabelled(answer)) return answer
  return { ...answer, endpoint: 'unmatched', method: methods.has(answer.method) ? answer.method : 'OTHER' }
}

/** What was answered over HTTP: counted, and in the log as far as it failed or was slow. */
export class Answers {
  readonly #options: AnswersOptions
  readonly #repeats: Repeats
  readonly #listeners = new Set<(answer: LabelledAnswer) => void>()

  constructor (options: AnswersOptions) {
    this.#options = options
    this.#repeats = new Repeats({ now: options.now })
  }

  record (given: Answer): void {
    const answer = labelled(given)
    this.#options.stats.record(answer.elapsedMs, answer.statusCode)
    for (const listener of this.#listeners) listener(answer)
    if (answer.statusCode >= 500) this.#tell('ERR', 'Failed', answer)
    else if (answer.elapsedMs >= this.#options.slowMs) this.#tell('WARN', 'Slow', answer)
  }

  /** Hears of every answer. Returns how to stop. */
  onAnswer (listener: (answer: LabelledAnswer) => void): () => void {
    this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }

  /** The same failure of the same route once per window: a registry in trouble must not fill its log with it. */
  #tell (level: 'ERR' | 'WARN', how: string, { method, endpoint, statusCode, elapsedMs, address, requestId }: LabelledAnswer) {
    const heldBack = this.#repeats.pass(`${how} ${method} ${endpoint} ${statusCode}`)
    if (heldBack === undefined) return
    this.#options.logs.add({
      level,
      message: `${how}: ${method} ${endpoint} (${statusCode}, ${Math.round(elapsedMs)} ms)`,
      source: 'server',
      method,
      endpoint,
      status_code: statusCode,
      response_time: Math.round(elapsedMs) / 1000,
      client_ip: address,
      request_id: requestId,
      ...(heldBack > 0 && { held_back: heldBack })
    })
  }
}
