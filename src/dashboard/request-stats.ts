import type { Clock } from '../lib/clock.js'
import { Emitter } from '../lib/emitter.js'
import { round } from './frames.js'
import { RepeatFilter, type LogBuffer } from './logs.js'

/** HTTP requests within a time window. */
export interface RequestSummary {
  total_requests: number
  /** Mean, in seconds with four decimals. */
  avg_response_time: number
  /** Fraction of responses with status 500 and above, 0 to 1. */
  error_rate: number
}

/**
 * Counts HTTP requests over a sliding window of buckets. Recording is O(1) and allocates nothing; a summary is
 * O(buckets).
 */
export class RequestStats {
  readonly #now: Clock
  readonly #bucketMs: number
  readonly #size: number
  /** Number of the time interval that each bucket covers. */
  readonly #intervals: Float64Array
  readonly #counts: Float64Array
  readonly #errors: Float64Array
  readonly #times: Float64Array

  constructor ({ now, windowMs = 300_000, bucketMs = 5_000 }: { now: Clock, windowMs?: number, bucketMs?: number }) {
    this.#now = now
    this.#bucketMs = bucketMs
    this.#size = Math.ceil(windowMs / bucketMs)
    this.#intervals = new Float64Array(this.#size).fill(-1)
    this.#counts = new Float64Array(this.#size)
    this.#errors = new Float64Array(this.#size)
    this.#times = new Float64Array(this.#size)
  }

  record (durationMs: number, statusCode: number): void {
    const interval = Math.floor(this.#now() / this.#bucketMs)
    const index = interval % this.#size
    if (this.#intervals[index] !== interval) this.#reset(index, interval)
    add(this.#counts, index, 1)
    add(this.#times, index, durationMs)
    if (statusCode >= 500) add(this.#errors, index, 1)
  }

  summary (): RequestSummary {
    const oldest = Math.floor(this.#now() / this.#bucketMs) - this.#size
    const total = { count: 0, errors: 0, time: 0 }
    for (const [index, interval] of this.#intervals.entries()) {
      if (interval <= oldest) continue
      total.count += this.#counts[index] ?? 0
      total.errors += this.#errors[index] ?? 0
      total.time += this.#times[index] ?? 0
    }
    const requests = Math.max(1, total.count)
    return {
      total_requests: total.count,
      avg_response_time: round(total.time / requests / 1000, 4),
      error_rate: round(total.errors / requests, 4)
    }
  }

  #reset (index: number, interval: number) {
    this.#intervals[index] = interval
    this.#counts[index] = 0
    this.#errors[index] = 0
    this.#times[index] = 0
  }
}

function add (values: Float64Array, index: number, amount: number): void {
  values[index] = (values[index] ?? 0) + amount
}

/** An HTTP request that was answered. */
export interface CompletedRequest {
  method: string
  /** The pattern of the route, never the path, which the client chooses; undefined if no route matched. */
  endpoint?: string
  statusCode: number
  elapsedMs: number
  address?: string
  requestId?: string
}

/** A request whose method and endpoint come from bounded sets, so that they can be labels of metrics. */
interface LabelledRequest extends CompletedRequest { endpoint: string }

interface RequestMonitorOptions {
  now: Clock
  logs: LogBuffer
  /** Duration from which a response counts as slow (ms). */
  slowMs: number
}

/** Methods that requests without a route are labelled with; all others count as `OTHER`. */
const methods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

const hasEndpoint = (request: CompletedRequest): request is LabelledRequest => request.endpoint !== undefined

function labelled (request: CompletedRequest): LabelledRequest {
  if (hasEndpoint(request)) return request
  return { ...request, endpoint: 'unmatched', method: methods.has(request.method) ? request.method : 'OTHER' }
}

/** Counts the requests that were answered, and logs those that failed or were slow. */
export class RequestMonitor {
  readonly events = new Emitter<{ request: [request: LabelledRequest] }>()
  readonly stats: RequestStats
  readonly #logs: LogBuffer
  readonly #slowMs: number
  readonly #repeats: RepeatFilter

  constructor ({ now, logs, slowMs }: RequestMonitorOptions) {
    this.stats = new RequestStats({ now })
    this.#logs = logs
    this.#slowMs = slowMs
    this.#repeats = new RepeatFilter({ now })
  }

  record (completed: CompletedRequest): void {
    const request = labelled(completed)
    this.stats.record(request.elapsedMs, request.statusCode)
    this.events.emit('request', request)
    if (request.statusCode >= 500) this.#log('ERR', 'Failed', request)
    else if (request.elapsedMs >= this.#slowMs) this.#log('WARN', 'Slow', request)
  }

  /** Logs equal failures of one route once per time window, so that an outage does not fill the log. */
  #log (level: 'ERR' | 'WARN', text: string, { method, endpoint, statusCode, elapsedMs, address, requestId }: LabelledRequest) {
    const suppressed = this.#repeats.pass(`${text} ${method} ${endpoint} ${statusCode}`)
    if (suppressed === undefined) return
    this.#logs.add({
      level,
      message: `${text}: ${method} ${endpoint} (${statusCode}, ${Math.round(elapsedMs)} ms)`,
      source: 'server',
      method,
      endpoint,
      status_code: statusCode,
      response_time: Math.round(elapsedMs) / 1000,
      client_ip: address,
      request_id: requestId,
      ...(suppressed > 0 && { held_back: suppressed })
    })
  }
}
