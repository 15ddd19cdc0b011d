import type { Clock } from '../lib/clock.js'
import { Emitter } from '../lib/emitter.js'
import { isObject, isPoisonousKey } from '../lib/json.js'
import { envelopeBytes, isoTime, maxFrameBytes } from './frames.js'

export type Scalar = string | number | boolean | null

export type LogLevel = 'INFO' | 'SUCS' | 'WARN' | 'CRIT' | 'ERR'

export interface LogEntry {
  /** RFC 3339, UTC, with milliseconds, by the clock of the registry. */
  readonly timestamp: string
  readonly level: LogLevel
  readonly message: string
  readonly source: string
  readonly [extra: string]: Scalar
}

/** Input of a log entry. Further members are stored with the entry if they are scalar and not secret. */
export interface LogInput {
  /** The level under any name that loggers use; unknown names count as INFO. */
  level: string
  message: string
  source: string
  [extra: string]: unknown
}

/** Data of a `logs` frame. */
interface LogsData {
  logs: LogEntry[]
  /** Number of stored entries, also if `logs` is truncated. */
  count: number
  last_updated: string
}

/** The part of a stream that loggers write to. */
export interface LogSink { write (line: string): void }

/** Value of the member `audit` in records of the process log that are already in the log of the dashboards. */
export const auditMark = 'agent-registry'

const secretWord = /(?:tokens?|tickets?|keys?|authorization|passwords?|passwd|secrets?|cookies?|credentials?)$|^pin$/i
const secretParameter = /(^|[?&;#\s"'({,])([\w.%-]*(?:token|ticket|key|password|passwd|secret|authorization|pin))=[^&\s"'<>#]+/gi
const credential = /\b(bearer|basic|dpop)[\s.]+[\w.~+/=-]{16,}/gi
const jsonWebToken = /(?<![\w-])eyJ[\w-]+\.[\w-]+\.[\w-]*/g

/** Whether a text may contain a secret at all; most texts do not. */
const suspicious = /=|bearer|basic|dpop|eyJ/i

const maxExtras = 24
const maxKeyLength = 64
const maxValueLength = 512
/** Searching for secrets costs time per character, so longer texts are truncated first. */
const maxInspected = 8_192

/** Truncates `text` to `length` UTF-16 units and marks the truncation by an ellipsis. */
export function truncate (text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 1).replace(/[\uD800-\uDBFF]$/, '')}…`
}

/** Removes the values of secret parameters, credentials and JSON Web Tokens, and truncates to `length` UTF-16 units. */
export function redact (text: string, length: number): string {
  const inspected = truncate(text, Math.max(maxInspected, length))
  if (!suspicious.test(inspected)) return truncate(inspected, length)
  return truncate(inspected
    .replace(secretParameter, '$1$2=[redacted]')
    .replace(credential, '$1 [redacted]')
    .replace(jsonWebToken, '[redacted]'), length)
}

/** Cached results: records have the same few member names over and over. */
const secretNames = new Map<string, boolean>()
const maxSecretNames = 1_000

/** Whether a member of this name may hold a secret. Case changes, `_`, `-` and `.` separate words. */
export function isSecretName (name: string): boolean {
  const known = secretNames.get(name)
  if (known !== undefined) return known
  const isSecret = hasSecretWord(name)
  if (secretNames.size < maxSecretNames) secretNames.set(name, isSecret)
  return isSecret
}

function hasSecretWord (name: string): boolean {
  return name.split(/[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])/).some(word => secretWord.test(word))
}

function scalarOf (value: unknown): Scalar | undefined {
  if (typeof value === 'string') return redact(value, maxValueLength)
  if (typeof value === 'number') return Number.isFinite(value) ? value : undefined
  return typeof value === 'boolean' || value === null ? value : undefined
}

/** The scalar members of `values`, limited in number and length, without secret names and the names in `reserved`. */
export function cleanMembers (values: object, reserved: ReadonlySet<string> = new Set()): Record<string, Scalar> {
  const clean: Record<string, Scalar> = {}
  let count = 0
  for (const [name, value] of Object.entries(values)) {
    if (reserved.has(name) || name.length > maxKeyLength || isPoisonousKey(name) || isSecretName(name)) continue
    const scalar = scalarOf(value)
    if (scalar === undefined) continue
    clean[name] = scalar
    if (++count === maxExtras) break
  }
  return clean
}

/** `bytes` is the size as JSON, computed on the first read. */
interface Item<T> { readonly value: T, bytes?: number }

function bytesOf<T> (item: Item<T>): number {
  item.bytes ??= Buffer.byteLength(JSON.stringify(item.value)) + 1
  return item.bytes
}

/** Keeps the newest `capacity` values. Adding is O(1). */
export class RingBuffer<T extends object> {
  readonly #capacity: number
  #items: Array<Item<T>> = []
  /** Index of the next value once the buffer is full. */
  #next = 0

  constructor (capacity: number) {
    this.#capacity = capacity
  }

  get size () { return this.#items.length }

  /** @returns the oldest value if it was removed */
  add (value: T): T | undefined {
    const removed = this.#items[this.#next]
    this.#items[this.#next] = { value }
    this.#next = (this.#next + 1) % this.#capacity
    return removed?.value
  }

  /** The newest values first: at most `count`, limited to `maxBytes` of JSON. */
  newest (count: number, maxBytes: number): T[] {
    const values: T[] = []
    let left = maxBytes
    for (let age = 1; age <= Math.min(count, this.size); age++) {
      const item = this.#items[(this.#next - age + this.size) % this.size]
      if (!item) break
      left -= bytesOf(item)
      if (left < 0) break
      values.push(item.value)
    }
    return values
  }

  clear (): void {
    this.#items = []
    this.#next = 0
  }
}

interface Repetition { until: number, suppressed: number }

/** Passes the first of equal events and then one per time window, so that a client cannot flood a log. */
export class RepeatFilter {
  readonly #now: Clock
  readonly #windowMs: number
  readonly #maxKeys: number
  readonly #repetitions = new Map<string, Repetition>()

  /** @param maxKeys number of distinct events that are tracked; the oldest are forgotten first */
  constructor ({ now, windowMs = 10_000, maxKeys = 1_000 }: { now: Clock, windowMs?: number, maxKeys?: number }) {
    this.#now = now
    this.#windowMs = windowMs
    this.#maxKeys = maxKeys
  }

  /** @returns the number of events suppressed since the last one that passed; undefined if this one is suppressed too */
  pass (key: string): number | undefined {
    const now = this.#now()
    const repetition = this.#repetitions.get(key)
    if (repetition && now < repetition.until) {
      repetition.suppressed++
      return undefined
    }
    this.#repetitions.delete(key)
    this.#repetitions.set(key, { until: now + this.#windowMs, suppressed: 0 })
    if (this.#repetitions.size > this.#maxKeys) {
      const [oldest = ''] = this.#repetitions.keys()
      this.#repetitions.delete(oldest)
    }
    return repetition?.suppressed ?? 0
  }
}

const levels = new Map<string, LogLevel>([
  ['INFO', 'INFO'], ['INFORMATION', 'INFO'], ['DEBUG', 'INFO'], ['TRACE', 'INFO'],
  ['SUCS', 'SUCS'], ['SUCCESS', 'SUCS'],
  ['WARN', 'WARN'], ['WARNING', 'WARN'],
  ['CRIT', 'CRIT'], ['CRITICAL', 'CRIT'], ['FATAL', 'CRIT'],
  ['ERR', 'ERR'], ['ERROR', 'ERR']
])
/** The levels that a dashboard may send. */
const dashboardLevels = new Set(['INFO', 'SUCS', 'WARN', 'CRIT', 'ERR', 'INFORMATION', 'SUCCESS', 'WARNING', 'CRITICAL', 'ERROR'])

const ownMembers = new Set(['timestamp', 'level', 'message', 'source'])
const maxSourceLength = 64
const isoDate = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?$/

export const isIsoDate = (value: unknown): value is string =>
  typeof value === 'string' && value.length <= 40 && isoDate.test(value) && !Number.isNaN(Date.parse(value))

/** The newest log entries for the dashboards, in memory. */
export class LogBuffer {
  readonly events = new Emitter<{ entry: [entry: LogEntry] }>()
  readonly #now: Clock
  readonly #maxMessageLength: number
  readonly #entries: RingBuffer<LogEntry>
  #updatedAt: number

  /**
   * @param capacity number of entries that are kept
   * @param maxMessageLength UTF-16 units after which a message is truncated
   */
  constructor ({ now, capacity = 10_000, maxMessageLength = 2_048 }: { now: Clock, capacity?: number, maxMessageLength?: number }) {
    this.#now = now
    this.#maxMessageLength = maxMessageLength
    this.#entries = new RingBuffer(capacity)
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
    this.events.emit('entry', entry)
    return entry
  }

  /** Data of a `logs` frame: the newest `max` entries, or fewer if they would exceed the size of a frame. */
  frame (max = 200): LogsData {
    const logs = this.#entries.newest(max, maxFrameBytes - envelopeBytes)
    return { logs, count: this.size, last_updated: isoTime(this.#updatedAt) }
  }

  clear (): void {
    this.#entries.clear()
    this.#updatedAt = this.#now()
  }
}

/**
 * Reads the `data` of a `dashboard_log` frame.
 * @param data `{level, message, timestamp}`, all required; `timestamp` is ISO 8601
 * @returns undefined if it is not valid
 */
export function dashboardLog (data: unknown): LogInput | undefined {
  if (!isObject(data)) return undefined
  const { level, message, timestamp } = data
  if (typeof level !== 'string' || !dashboardLevels.has(level.trim().toUpperCase())) return undefined
  if (typeof message !== 'string' || message.trim() === '' || !isIsoDate(timestamp)) return undefined
  return { level, message: message.trim(), source: 'dashboard', frontend_timestamp: timestamp }
}

const infoLevel = 30
const warnLevel = 40
/** Members that pino adds to every record, or that an entry has under another name. */
const pinoMembers = new Set(['level', 'time', 'pid', 'hostname', 'msg', 'name', 'v'])

function levelName (level: number): string {
  if (level >= 60) return 'CRIT'
  if (level >= 50) return 'ERR'
  return level >= 40 ? 'WARN' : 'INFO'
}

function parseRecord (line: string): Record<string, unknown> | undefined {
  try {
    const record: unknown = JSON.parse(line)
    return isObject(record) ? record : undefined
  } catch {
    return undefined
  }
}

/** The members of requests, responses and errors that Fastify and the stand-alone server log, under the names of entries. */
function requestMembers ({ req, res, err }: Record<string, unknown>): Record<string, unknown> {
  return {
    ...(isObject(req) ? { method: req.method, endpoint: req.url ?? req.path, client_ip: req.remoteAddress ?? req.address } : {}),
    ...(isObject(res) ? { status_code: res.statusCode } : {}),
    ...(isObject(err) ? { error: err.message, error_type: err.type } : {})
  }
}

function inputOf (record: Record<string, unknown>, level: number): LogInput {
  const extras = Object.fromEntries(Object.entries(record).filter(([name]) => !pinoMembers.has(name)))
  const { msg, name } = record
  return {
    ...extras,
    ...requestMembers(record),
    level: levelName(level),
    message: typeof msg === 'string' ? msg : '',
    source: typeof name === 'string' ? name : 'server'
  }
}

/**
 * A destination for pino (`pino.multistream`, or the `stream` of a Fastify logger) that adds its records to the log of
 * the dashboards, except those that it contains already. By default, records below a warning are dropped: two lines per
 * request would soon displace all other entries.
 * @param minLevel pino's number of the lowest level that is kept; 40 is warn
 */
export function createLogSink (logs: LogBuffer, { minLevel = warnLevel }: { minLevel?: number } = {}): LogSink {
  return {
    write (line) {
      const record = parseRecord(line) ?? { msg: line.trim() }
      const level = typeof record.level === 'number' ? record.level : infoLevel
      if (level >= minLevel && record.audit !== auditMark) logs.add(inputOf(record, level))
    }
  }
}
