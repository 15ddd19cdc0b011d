import { createHash, randomUUID, timingSafeEqual } from 'node:crypto'
import { problem, validationFailed } from '../errors.js'
import type { Clock } from '../lib/clock.js'
import { Emitter } from '../lib/emitter.js'
import { ExpiringMap } from '../lib/expiring-map.js'
import type { KeyValueReplica } from '../storage/kv-store.js'
import type { Attempts } from './attempts.js'
import type { PasswordHasher } from './passwords.js'
import type { AuthEventListener, Principal } from '../protocol/principal.js'

/** The session of an admin. `expiresAt` is in epoch milliseconds. */
interface Session {
  readonly id: string
  readonly username: string
  readonly fingerprint: string
  readonly address: string
  readonly expiresAt: number
  readonly pinHash: string | null
}

/** `ended`: another process ended it; the reason is not shared. */
type SessionEnd = 'logout' | 'replaced' | 'expired' | 'ended'

interface SessionEvents {
  /** A session has ended, in any process. Emitted once for each session. */
  ended: [session: Session, reason: SessionEnd]
}

interface SessionsOptions {
  kvReplica: KeyValueReplica
  timeoutMs: number
  /** Most live sessions of one user. Opening another one ends the oldest. */
  maxSessions: number
  now: Clock
}

const kind = 'session'
const digest = (text: string) => createHash('sha256').update(text).digest()
const parseSession = (text: string): Session => JSON.parse(text)
const entryOf = (session: Session) => ({ kind, key: session.id, value: JSON.stringify(session), until: session.expiresAt } as const)

/** Orders sessions by age; the id breaks ties, so that all processes agree. */
function byAge (a: Session, b: Session): number {
  return a.expiresAt - b.expiresAt || (a.id < b.id ? -1 : 1)
}

/** Sessions of admins, which all processes share. Each process answers from a local copy and emits every end. */
export class Sessions extends Emitter<SessionEvents> {
  readonly #kvReplica: KeyValueReplica
  readonly #timeoutMs: number
  readonly #maxSessions: number
  readonly #now: Clock
  readonly #sessions = new Map<string, Session>()
  /** Ids that have ended or never existed: they need no further request to the store. */
  readonly #ended: ExpiringMap<true>
  /** The reasons of sessions that this process is ending. */
  readonly #reasons = new Map<string, SessionEnd>()
  #lastExpiry = 0

  constructor ({ kvReplica, timeoutMs, maxSessions, now }: SessionsOptions) {
    super()
    this.#kvReplica = kvReplica
    this.#timeoutMs = timeoutMs
    this.#maxSessions = maxSessions
    this.#now = now
    this.#ended = new ExpiringMap(now, 10_000)
    kvReplica.attach(kind, {
      put: entry => { this.#put(entry) },
      removed: key => { this.#removed(key) },
      keys: () => this.#sessions.keys()
    })
  }

  get size () { return this.#sessions.size }

  /**
   * Opens a session. When two are opened at once, here or in two processes, both calls may end the same older sessions;
   * at most `maxSessions` remain.
   */
  async open ({ username, fingerprint, address }: { username: string, fingerprint: string, address: string }): Promise<Session> {
    this.sweep()
    const session: Session = { id: randomUUID(), username, fingerprint, address, expiresAt: this.#nextExpiry(), pinHash: null }
    await this.#kvReplica.store.put(entryOf(session))
    const all = (await this.#kvReplica.store.list(kind)).flatMap(({ value }) => value === null ? [] : parseSession(value))
    const own = all.filter(other => other.username === username).sort(byAge)
    for (const { id } of own.slice(0, -this.#maxSessions)) await this.#take(id, 'replaced')
    return session
  }

  /** The session, if it is live. */
  async find (id: string): Promise<Session | undefined> {
    const session = this.#live(id)
    return session || this.#ended.get(id) ? session : this.#load(id)
  }

  /** The session, if it is live and was opened with this fingerprint. */
  async check (id: string, fingerprint: string): Promise<Session | undefined> {
    const session = await this.find(id)
    return session && timingSafeEqual(digest(session.fingerprint), digest(fingerprint)) ? session : undefined
  }

  /** @returns whether there was such a session */
  async end (id: string): Promise<boolean> {
    const session = await this.find(id)
    return session !== undefined && this.#take(id, 'logout')
  }

  /** Sets the PIN of a session that has none. Of two concurrent calls only one succeeds. */
  async setPin (id: string, pinHash: string): Promise<'set' | 'already-set' | 'not-found'> {
    const session = await this.find(id)
    if (!session) return 'not-found'
    if (session.pinHash !== null) return 'already-set'
    const isSet = await this.#kvReplica.store.put(entryOf({ ...session, pinHash }), JSON.stringify(session))
    if (isSet) return 'set'
    return await this.#load(id) ? 'already-set' : 'not-found'
  }

  /** Ends expired sessions. Otherwise a session ends when it is next used after its expiry. */
  sweep (): void {
    for (const id of this.#sessions.keys()) this.#live(id)
  }

  /** Sessions opened in the same millisecond expire in the order in which they were opened. */
  #nextExpiry (): number {
    this.#lastExpiry = Math.max(this.#now() + this.#timeoutMs, this.#lastExpiry + 1)
    return this.#lastExpiry
  }

  /** The store may have a session that another process opened a moment ago and that the copy does not have yet. */
  async #load (id: string): Promise<Session | undefined> {
    const text = await this.#kvReplica.store.get(kind, id)
    if (text === undefined) this.#markEnded(id)
    else this.#put({ key: id, value: text })
    return this.#live(id)
  }

  #live (id: string): Session | undefined {
    const session = this.#sessions.get(id)
    if (!session || session.expiresAt > this.#now()) return session
    this.#end(session, 'expired')
  }

  async #take (id: string, reason: SessionEnd): Promise<boolean> {
    this.#reasons.set(id, reason)
    try {
      return await this.#kvReplica.store.take(kind, id) !== undefined
    } finally {
      this.#reasons.delete(id)
    }
  }

  #put ({ key, value }: { key: string, value: string }) {
    if (!this.#ended.get(key)) this.#sessions.set(key, parseSession(value))
  }

  #removed (id: string) {
    const session = this.#live(id)
    if (session) this.#end(session, this.#reasons.get(id) ?? 'ended')
    else this.#markEnded(id)
  }

  #end (session: Session, reason: SessionEnd) {
    this.#sessions.delete(session.id)
    this.#markEnded(session.id)
    this.emit('ended', session, reason)
  }

  #markEnded (id: string) {
    this.#ended.set(id, true, this.#now() + this.#timeoutMs)
  }
}

interface PinsOptions {
  sessions: Sessions
  passwords: PasswordHasher
  attempts: Attempts
  /** Receives an event for each PIN that is set or checked. */
  onEvent?: AuthEventListener
}

const weakPins = new Set(['password', 'admin', '1234', '12345', '123456', ...Array.from('0123456789', digit => digit.repeat(4))])

/** Surrounding spaces are ignored: a header cannot contain them. */
function checkedPin (text: string, minimum: number): string {
  const pin = text.trim()
  if (pin.length < minimum || pin.length > 32) throw validationFailed([{ path: '/pin', message: `Expected ${minimum} to 32 characters` }])
  return pin
}

export function sessionInvalid () {
  return problem('session-invalid', 'Admin session validation failed')
}

/** PINs of admin sessions: a second secret for operations that cannot be undone. */
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

  /** @throws validation-failed for a PIN that is too short, too long or weak; session-invalid; pin-already-set */
  async set (principal: Principal, text: string, address?: string): Promise<void> {
    const pin = checkedPin(text, 4)
    if (weakPins.has(pin.toLowerCase())) throw validationFailed([{ path: '/pin', message: 'This PIN is too easy to guess' }])
    const session = await this.session(principal)
    const outcome = session.pinHash === null
      ? await this.#sessions.setPin(session.id, await this.#passwords.hashPassword(pin))
      : 'already-set'
    if (outcome === 'not-found') throw sessionInvalid()
    if (outcome === 'already-set') throw problem('pin-already-set', 'A PIN is already set for this session')
    this.#onEvent?.({ type: 'pin_set', subject: session.username, address })
  }

  /** @throws validation-failed; session-invalid; pin-not-set; pin-incorrect; rate-limit-exceeded */
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
   * Accepts a session without a PIN, a principal without a session (an admin of the host), and the correct PIN.
   * @throws pin-required; pin-incorrect; session-invalid; rate-limit-exceeded
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
