import type { AuthEvent, AuthEventType } from '../protocol/principal.js'
import type { Clock } from '../lib/clock.js'
import type { Log } from '../foundation.js'
import type { LogInput, LogLevel, LogRing } from './logs.js'
import { Repeats } from './repeats.js'

/** Value of the member `audit` in records of the process's log that the dashboards have already. */
export const auditMark = 'agent-registry'

interface Kind {
  level: LogLevel
  source: 'auth' | 'security'
  text: string
  /** Under which name the subject is shown. */
  who?: 'agent_id'
  /** Anybody can make as many of these as he likes: equal ones are told once per window. */
  isFrequent?: true
}

const kinds: Partial<Record<AuthEventType, Kind>> = {
  login_success: { level: 'INFO', source: 'auth', text: 'Admin login succeeded' },
  login_failed: { level: 'WARN', source: 'auth', text: 'Admin login failed' },
  temp_token_success: { level: 'INFO', source: 'auth', text: 'Temporary token succeeded', who: 'agent_id' },
  temp_token_failed: { level: 'WARN', source: 'auth', text: 'Temporary token failed', who: 'agent_id' },
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

/** Which attempt an event is the end of, if any. */
const outcomes: Partial<Record<AuthEventType, readonly ['login' | 'temp_token', 'success' | 'failure']>> = {
  login_success: ['login', 'success'],
  login_failed: ['login', 'failure'],
  login_limited: ['login', 'failure'],
  temp_token_success: ['temp_token', 'success'],
  temp_token_failed: ['temp_token', 'failure'],
  temp_token_limited: ['temp_token', 'failure']
}

/** Who got in, who did not, and what became of rights: told to the dashboards and to the log of the process, once each. */
export class Audit {
  /** Logins and uses of agent keys since the start. */
  readonly tally = { login: { success: 0, failure: 0 }, temp_token: { success: 0, failure: 0 } }
  readonly #logs: LogRing
  readonly #log: Log
  readonly #repeats: Repeats

  constructor ({ logs, log, now }: { logs: LogRing, log: Log, now: Clock }) {
    this.#logs = logs
    this.#log = log
    this.#repeats = new Repeats({ now })
  }

  /** Of attempts that were refused without a look (`…_limited`) only the lockout is told. */
  record (event: AuthEvent): void {
    const { type, subject, target, address, details } = event
    this.#count(type)
    const kind = kinds[type]
    if (!kind) return
    const heldBack = kind.isFrequent ? this.#repeats.pass(`${type} ${subject} ${address} ${target}`) : 0
    if (heldBack === undefined) return
    const about = target ?? subject
    this.write({
      ...details,
      level: kind.level,
      message: about === undefined ? kind.text : `${kind.text}: ${about}`,
      source: kind.source,
      event_type: type,
      [kind.who ?? 'user_id']: subject,
      target,
      client_ip: address,
      ...(heldBack > 0 && { held_back: heldBack })
    })
  }

  /** An entry for both logs, which hold the same of it: bounded, and without what may be secret. */
  write (input: LogInput): void {
    const { timestamp, level, message, ...members } = this.#logs.add(input)
    this.#log[methods[level]]({ ...members, audit: auditMark }, message)
  }

  #count (type: AuthEventType) {
    const outcome = outcomes[type]
    if (outcome) this.tally[outcome[0]][outcome[1]]++
  }
}
