import { isObject } from '../lib/json.js'
import { auditMark } from './audit.js'
import type { LogInput, LogRing } from './logs.js'

/** The part of a stream that loggers write to. */
export interface LogSink { write (line: string): void }

const infoLevel = 30
const warnLevel = 40
/** What pino adds to every record, or what is shown under another name. */
const plumbing = new Set(['level', 'time', 'pid', 'hostname', 'msg', 'name', 'v'])

function levelName (level: number): string {
  if (level >= 60) return 'CRIT'
  if (level >= 50) return 'ERR'
  return level >= 40 ? 'WARN' : 'INFO'
}

function parse (line: string): Record<string, unknown> | undefined {
  try {
    const record: unknown = JSON.parse(line)
    return isObject(record) ? record : undefined
  } catch {
    return undefined
  }
}

/** Members of what Fastify, or the stand-alone server, logs about a request, an answer and an error, under the names of entries. */
function known ({ req, res, err }: Record<string, unknown>): Record<string, unknown> {
  return {
    ...(isObject(req) ? { method: req.method, endpoint: req.url ?? req.path, client_ip: req.remoteAddress ?? req.address } : {}),
    ...(isObject(res) ? { status_code: res.statusCode } : {}),
    ...(isObject(err) ? { error: err.message, error_type: err.type } : {})
  }
}

function entryOf (record: Record<string, unknown>, level: number): LogInput {
  const extras = Object.fromEntries(Object.entries(record).filter(([name]) => !plumbing.has(name)))
  const { msg, name } = record
  return {
    ...extras,
    ...known(record),
    level: levelName(level),
    message: typeof msg === 'string' ? msg : '',
    source: typeof name === 'string' ? name : 'server'
  }
}

/**
 * A destination for pino (`pino.multistream`, or the `stream` of a Fastify logger) that turns its records into entries,
 * but for those that the ring has already. Below a warning hardly anything is for an operator: two lines for every
 * request would soon have pushed out all else.
 * @param minLevel pino's number of the least level that is kept; 40 is warn
 */
export function logSink (ring: LogRing, { minLevel = warnLevel }: { minLevel?: number } = {}): LogSink {
  return {
    write (line) {
      const record = parse(line) ?? { msg: line.trim() }
      const level = typeof record.level === 'number' ? record.level : infoLevel
      if (level >= minLevel && record.audit !== auditMark) ring.add(entryOf(record, level))
    }
  }
}
