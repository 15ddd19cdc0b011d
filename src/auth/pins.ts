import { problem, validationFailed } from '../errors.js'
import type { Attempts } from './attempts.js'
import type { AuthEventListener } from './auth-event.js'
import type { PasswordHasher } from './passwords.js'
import type { Principal } from './principal.js'
import type { Session, Sessions } from './sessions.js'

export interface PinsOptions {
  sessions: Sessions
  passwords: PasswordHasher
  attempts: Attempts
  /** Hears of PINs that are set, right or wrong. */
  onEvent?: AuthEventListener
}

const weak = new Set(['password', 'admin', '1234', '12345', '123456'])
for (let digit = 0; digit <= 9; digit++) weak.add(String(digit).repeat(4))

/** Surrounding blanks do not count: a header could not carry them. */
function checkedPin (text: string, minimum: number): string {
  const pin = text.trim()
  const isLong = pin.length >= minimum && pin.length <= 32
  if (!isLong) throw validationFailed([{ path: '/pin', message: `Expected ${minimum} to 32 characters` }])
  return pin
}

export function sessionInvalid () {
  return problem('session-invalid', 'Admin session validation failed')
}

/** PINs of admin sessions: a second secret for what cannot be undone. */
export class Pins {
  readonly #sessions: Sessions
  readonly #passwords: PasswordHasher
  readonly #attempts: Attempts
  readonly #onEvent: AuthEventListener | undefined

  constructor ({ sessions, passwords, attempts, onEvent }: PinsOptions) {
    this.#sessions = sessions
    this.#passwords = passwords
    this.#attempts = attempts
    this.#onEvent = onEvent
  }

  /** @throws validation-failed for a PIN that is too short, too long or weak; session-invalid; pin-already-set. */
  async set (principal: Principal, text: string, address?: string): Promise<void> {
    const pin = checkedPin(text, 4)
    if (weak.has(pin.toLowerCase())) throw validationFailed([{ path: '/pin', message: 'This PIN is too easy to guess' }])
    const session = await this.session(principal)
    const outcome = session.pinHash === null
      ? await this.#sessions.setPin(session.id, await this.#passwords.hashPassword(pin))
      : 'already-set'
    if (outcome === 'not-found') throw sessionInvalid()
    if (outcome === 'already-set') throw problem('pin-already-set', 'A PIN is already set for this session')
    this.#onEvent?.({ type: 'pin_set', subject: session.username, address })
  }

  /** @throws validation-failed; session-invalid; pin-not-set; pin-incorrect; rate-limit-exceeded. */
  async verify (principal: Principal, text: string, address: string): Promise<void> {
    const pin = checkedPin(text, 1)
    const session = await this.session(principal)
    if (session.pinHash === null) throw problem('pin-not-set', 'No PIN is set for this session')
    await this.#check(session, session.pinHash, pin, address)
  }

  /** Whether the session of `principal` has a PIN. @throws session-invalid */
  async status (principal: Principal): Promise<{ pin_set: boolean }> {
    const session = await this.session(principal)
    return { pin_set: session.pinHash !== null }
  }

  /**
   * Passes when the session has no PIN (or there is no session, as with admins of the host) or `text` is the PIN.
   * @throws pin-required; pin-incorrect; session-invalid; rate-limit-exceeded.
   */
  async require (principal: Principal, text: string | undefined, address: string): Promise<void> {
    if (principal.sessionId === null) return
    const session = await this.session(principal)
    if (session.pinHash === null) return
    const pin = text?.trim() ?? ''
    if (pin === '') throw problem('pin-required', 'The session PIN is required in X-Session-Pin')
    await this.#check(session, session.pinHash, pin, address)
  }

  /** The live session of `principal`. @throws session-invalid */
  async session ({ sessionId }: Principal): Promise<Session> {
    const session = sessionId === null ? undefined : await this.#sessions.find(sessionId)
    if (!session) throw sessionInvalid()
    return session
  }

  async #check (session: Session, hash: string, pin: string, address: string) {
    await this.#attempts.attempt({ kind: 'pin', address, account: session.id }, async () => {
      const isRight = await this.#passwords.verifyPassword(pin, hash)
      this.#onEvent?.({ type: isRight ? 'pin_verify_success' : 'pin_verify_failed', subject: session.username, address })
      if (!isRight) throw problem('pin-incorrect', 'Incorrect PIN')
    })
  }
}
