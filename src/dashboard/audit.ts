import type { AuthEvent, AuthEventType } from '../protocol/principal.js'
import type { Clock } from '../lib/clock.js'
import { auditMark, RepeatFilter, type LogBuffer, type LogInput, type LogLevel } from './logs.js'

/** The part of a logger that is used here. */
export interface Log {
  info (details: object, message: string): void
  warn (details: object, message: string): void
  error (details: object, message: string): void
}

interface EventText {
  level: LogLevel
  source: 'auth' | 'security'
  text: string
  /** The member that names the subject; default: `user_id`. */
  subjectMember?: 'agent_id'
  /** Clients can cause any number of these events, so equal ones are logged once per time window. */
  isFrequent?: true
}

const texts: Partial<Record<AuthEventType, EventText>> = {
  login_success: { level: 'INFO', source: 'auth', text: 'Admin login succeeded' },
  login_failed: { level: 'WARN', source: 'auth', text: 'Admin login failed' },
  temp_token_success: { level: 'INFO', source: 'auth', text: 'Temporary token succeeded', subjectMember: 'agent_id' },
  temp_token_failed: { level: 'WARN', source: 'auth', text: 'Temporary token failed', subjectMember: 'agent_id' },
  logout: { level: 'INFO', source: 'auth', text: 'Logout' },
  pin_set: { level: 'INFO', source: 'auth', text: 'PIN set' },
  pin_verify_success: { level: 'INFO', source: 'auth', text: 'PIN verified' },
  pin_verify_failed: { level: 'WARN', source: 'auth', text: 'Wrong PIN' },
  token_revoked: { level: 'WARN', source: 'security', text: 'Token revoked' },
  agent_revoked: { level: 'WARN', source: 'security', text: 'Tokens of an agent revoked' },
  lockout: { level: 'ERR', source: 'security', text: 'Too many failed attempts' },
  permission_denied: { level: 'WARN', source: 'security', text: 'Permission denied', isFrequent: true }
}

const methods = { INFO: 'info', SUCS: 'info', WARN: 'warn', ERR: 'error', CRIT: 'error' } as const satisfies Record<LogLevel, keyof Log>

/** The attempt that an event concludes. */
const outcomes: Partial<Record<AuthEventType, readonly ['login' | 'temp_token', 'success' | 'failure']>> = {
  login_success: ['login', 'success'],
  login_failed: ['login', 'failure'],
  login_limited: ['login', 'failure'],
  temp_token_success: ['temp_token', 'success'],
  temp_token_failed: ['temp_token', 'failure'],
  temp_token_limited: ['temp_token', 'failure']
}

/** Records logins, uses of keys and changes of rights, in the log of the dashboards and the log of the process. */
export class AuditLog {
  /** Number of logins and uses of agent keys since the start. */
  readonly attempts = { login: { success: 0, failure: 0 }, temp_token: { success: 0, failure: 0 } }
  readonly #logs: LogBuffer
  readonly #log: Log
  readonly #repeats: RepeatFilter

  constructor ({ logs, log, now }: { logs: LogBuffer, log: Log, now: Clock }) {
    this.#logs = logs
    this.#log = log
    this.#repeats = new RepeatFilter({ now })
  }

  /** Attempts refused during a lockout (`…_limited`) are only counted; the lockout itself is logged. */
  record (event: AuthEvent): void {
    const { type, subject, target, address, details } = event
    this.#count(type)
    const text = texts[type]
    if (!text) return
    const suppressed = text.isFrequent ? this.#repeats.pass(`${type} ${subject} ${address} ${target}`) : 0
    if (suppressed === undefined) return
    const about = target ?? subject
    this.write({
      ...details,
      level: text.level,
      message: about === undefined ? text.text : `${text.text}: ${about}`,
      source: text.source,
      event_type: type,
      [text.subjectMember ?? 'user_id']: subject,
      target,
      client_ip: address,
      ...(suppressed > 0 && { held_back: suppressed })
    })
  }

  /** Writes an entry to both logs, with limited members and without secrets. */
  write (input: LogInput): void {
    const { timestamp, level, message, ...members } = this.#logs.add(input)
    this.#log[methods[level]]({ ...members, audit: auditMark }, message)
  }

  #count (type: AuthEventType) {
    const outcome = outcomes[type]
    if (outcome) this.attempts[outcome[0]][outcome[1]]++
  }
}
