import type { Clock } from '../lib/clock.js'
import { isObject } from '../lib/json.js'
import { envelopeBytes, isoTime, maxFrameBytes } from './frame.js'
import { Recent } from './recent.js'
import { cleanMembers, redact, type Scalar } from './redact.js'

export type LogLevel = 'INFO' | 'SUCS' | 'WARN' | 'CRIT' | 'ERR'

export interface LogEntry {
  /** RFC 3339, UTC, milliseconds, by the clock of the registry. */
  readonly timestamp: string
  readonly level: LogLevel
  readonly message: string
  readonly source: string
  readonly [extra: string]: Scalar
}

/** What is logged: whatever else it holds is kept beside the message, as far as it is scalar and not secret. */
export interface LogInput {
  /** Any spelling that loggers use; an unknown one is INFO. */
  level: string
  message: string
  source: string
  [extra: string]: unknown
}

/** Data of a `logs` frame. */
export interface LogsData {
  logs: LogEntry[]
  /** How many there are, also when `logs` is cut. */
  count: number
  last_updated: string
}

const levels = new Map<string, LogLevel>([
  ['INFO', 'INFO'], ['INFORMATION', 'INFO'], ['DEBUG', 'INFO'], ['TRACE', 'INFO'],
  ['SUCS', 'SUCS'], ['SUCCESS', 'SUCS'],
  ['WARN', 'WARN'], ['WARNING', 'WARN'],
  ['CRIT', 'CRIT'], ['CRITICAL', 'CRIT'], ['FATAL', 'CRIT'],
  ['ERR', 'ERR'], ['ERROR', 'ERR']
])
/** What the page may send as a level. */
const pageLevels = new Set(['INFO', 'SUCS', 'WARN', 'CRIT', 'ERR', 'INFORMATION', 'SUCCESS', 'WARNING', 'CRITICAL', 'ERROR'])

const ownMembers = new Set(['timestamp', 'level', 'message', 'source'])
const maxSourceLength = 64
const isoDate = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?$/

export const isIsoDate = (value: unknown): value is string =>
  typeof value === 'string' && value.length <= 40 && isoDate.test(value) && !Number.isNaN(Date.parse(value))

/** Log entries for the dashboard: bounded, newest first, in memory. */
export class LogRing {
  readonly #now: Clock
  readonly #maxMessageLength: number
  readonly #entries: Recent<LogEntry>
  readonly #listeners = new Set<(entry: LogEntry) => void>()
  #updatedAt: number

  /**
   * @param capacity entries that are kept
   * @param maxMessageLength UTF-16 units after which a message is cut
   */
  constructor ({ now, capacity = 10_000, maxMessageLength = 2_048 }: { now: Clock, capacity?: number, maxMessageLength?: number }) {
    this.#now = now
    this.#maxMessageLength = maxMessageLength
    this.#entries = new Recent(capacity)
    this.#updatedAt = now()
  }

  get size () { return this.#entries.size }

  add (input: LogInput): LogEntry {
    this.#updatedAt = this.#now()
    const entry = {
      timestamp: isoTime(this.#updatedAt),
      level: levels.get(input.level.trim().toUpperCase()) ?? 'INFO',
      message: redact(input.message, this.#maxMessageLength),
      source: redact(input.source, maxSourceLength),
      ...cleanMembers(input, ownMembers)
    }
    this.#entries.add(entry)
    for (const listener of this.#listeners) listener(entry)
    return entry
  }

  /** The newest `max` entries, fewer when they would not fit into a frame. */
  frame (max = 200): LogsData {
    const logs = this.#entries.newest(max, maxFrameBytes - envelopeBytes)
    return { logs, count: this.size, last_updated: isoTime(this.#updatedAt) }
  }

  clear (): void {
    this.#entries.clear()
    this.#updatedAt = this.#now()
  }

  /** Hears of every entry that is added. Returns how to stop. */
  onEntry (listener: (entry: LogEntry) => void): () => void {
    this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }
}

/**
 * What to add for the `data` of a `dashboard_log` frame.
 * @param data `{level, message, timestamp}`, all required; `timestamp` is ISO 8601
 * @returns undefined when it is not valid
 */
export function dashboardLog (data: unknown): LogInput | undefined {
  if (!isObject(data)) return undefined
  const { level, message, timestamp } = data
  if (typeof level !== 'string' || !pageLevels.has(level.trim().toUpperCase())) return undefined
  if (typeof message !== 'string' || message.trim() === '' || !isIsoDate(timestamp)) return undefined
  return { level, message: message.trim(), source: 'dashboard', frontend_timestamp: timestamp }
}
