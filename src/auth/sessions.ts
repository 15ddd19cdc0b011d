import { createHash, randomUUID, timingSafeEqual } from 'node:crypto'
import type { Clock } from '../clock.js'

/** The session of an admin. `expiresAt` is in epoch milliseconds. */
export interface Session {
  readonly id: string
  readonly username: string
  readonly fingerprint: string
  readonly address: string
  readonly expiresAt: number
  readonly pinHash: string | null
}

export type SessionEnd = 'logout' | 'replaced' | 'expired'
export type SessionEndListener = (session: Session, reason: SessionEnd) => void

export interface SessionsOptions {
  timeoutMs: number
  /** Live sessions of one user; the oldest end when another is opened. */
  maxSessions: number
  now: Clock
}

const digest = (text: string) => createHash('sha256').update(text).digest()

/** Sessions of admins, in memory. The methods are asynchronous so that a shared store can stand here. */
export class Sessions {
  readonly #timeoutMs: number
  readonly #maxSessions: number
  readonly #now: Clock
  readonly #sessions = new Map<string, Session>()
  readonly #listeners = new Set<SessionEndListener>()

  constructor ({ timeoutMs, maxSessions, now }: SessionsOptions) {
    this.#timeoutMs = timeoutMs
    this.#maxSessions = maxSessions
    this.#now = now
  }

  get size () { return this.#sessions.size }

  async open ({ username, fingerprint, address }: { username: string, fingerprint: string, address: string }): Promise<Session> {
    this.#sweep()
    const session = { id: randomUUID(), username, fingerprint, address, expiresAt: this.#now() + this.#timeoutMs, pinHash: null }
    this.#sessions.set(session.id, session)
    const own = [...this.#sessions.values()].filter(other => other.username === username)
    for (const oldest of own.slice(0, -this.#maxSessions)) this.#end(oldest, 'replaced')
    return session
  }

  /** The session while it is live. */
  async find (id: string): Promise<Session | undefined> {
    return this.#live(id)
  }

  /** The session if it is live and was opened with this fingerprint. */
  async check (id: string, fingerprint: string): Promise<Session | undefined> {
    const session = this.#live(id)
    return session && timingSafeEqual(digest(session.fingerprint), digest(fingerprint)) ? session : undefined
  }

  /** Whether there was such a session. */
  async end (id: string): Promise<boolean> {
    const session = this.#live(id)
    if (session) this.#end(session, 'logout')
    return session !== undefined
  }

  /** Sets the PIN of a session that has none: of two at once only one does. */
  async setPin (id: string, pinHash: string): Promise<'set' | 'already-set' | 'not-found'> {
    const session = this.#live(id)
    if (!session) return 'not-found'
    if (session.pinHash !== null) return 'already-set'
    this.#sessions.set(id, { ...session, pinHash })
    return 'set'
  }

  /** Ends the sessions that have expired; without it they end when they are next looked at. */
  async sweep (): Promise<void> {
    this.#sweep()
  }

  /** Calls `listener` with every session that ends. Returns a function that stops it. */
  onEnd (listener: SessionEndListener): () => void {
    this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }

  #live (id: string): Session | undefined {
    const session = this.#sessions.get(id)
    if (!session || session.expiresAt > this.#now()) return session
    this.#end(session, 'expired')
  }

  #sweep () {
    for (const id of this.#sessions.keys()) this.#live(id)
  }

  #end (session: Session, reason: SessionEnd) {
    this.#sessions.delete(session.id)
    for (const listener of this.#listeners) listener(session, reason)
  }
}
