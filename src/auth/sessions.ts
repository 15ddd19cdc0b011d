import { createHash, randomUUID, timingSafeEqual } from 'node:crypto'
import { ExpiringMap } from '../lib/expiring-map.js'
import type { Clock } from '../lib/clock.js'
import type { KeyValueReplica } from '../storage/kv-replica.js'

/** The session of an admin. `expiresAt` is in epoch milliseconds. */
export interface Session {
  readonly id: string
  readonly username: string
  readonly fingerprint: string
  readonly address: string
  readonly expiresAt: number
  readonly pinHash: string | null
}

/** `ended`: by another process, which does not say why. */
export type SessionEnd = 'logout' | 'replaced' | 'expired' | 'ended'
export type SessionEndListener = (session: Session, reason: SessionEnd) => void

export interface SessionsOptions {
  state: KeyValueReplica
  timeoutMs: number
  /** Live sessions of one user; the oldest end when another is opened. */
  maxSessions: number
  now: Clock
}

const kind = 'session'
const digest = (text: string) => createHash('sha256').update(text).digest()
const sessionOf = (text: string) => JSON.parse(text) as Session
const entryOf = (session: Session) => ({ kind, key: session.id, value: JSON.stringify(session), until: session.expiresAt } as const)

function isOlder (a: Session, b: Session): number {
  return a.expiresAt - b.expiresAt || (a.id < b.id ? -1 : 1)
}

/** Sessions of admins, shared by all processes. Each answers from its own copy, and hears of every end. */
export class Sessions {
  readonly #state: KeyValueReplica
  readonly #timeoutMs: number
  readonly #maxSessions: number
  readonly #now: Clock
  readonly #sessions = new Map<string, Session>()
  /** What is known to have ended, so that nobody has to be asked for it again. */
  readonly #ended: ExpiringMap<true>
  /** Why sessions end that end by this process. */
  readonly #reasons = new Map<string, SessionEnd>()
  readonly #listeners = new Set<SessionEndListener>()
  #lastEnd = 0

  constructor ({ state, timeoutMs, maxSessions, now }: SessionsOptions) {
    this.#state = state
    this.#timeoutMs = timeoutMs
    this.#maxSessions = maxSessions
    this.#now = now
    this.#ended = new ExpiringMap(now, 10_000)
    state.attach(kind, {
      put: entry => { this.#put(entry) },
      removed: key => { this.#removed(key) },
      keys: () => this.#sessions.keys()
    })
  }

  get size () { return this.#sessions.size }

  /**
   * Two that are opened at once, here or in two processes, end at most the same older ones: whoever looks last sees
   * both, and never more than `maxSessions` stay.
   */
  async open ({ username, fingerprint, address }: { username: string, fingerprint: string, address: string }): Promise<Session> {
    this.#sweep()
    const session: Session = { id: randomUUID(), username, fingerprint, address, expiresAt: this.#nextEnd(), pinHash: null }
    await this.#state.store.put(entryOf(session))
    const all = (await this.#state.store.list(kind)).map(({ value }) => sessionOf(value!))
    const own = all.filter(other => other.username === username).sort(isOlder)
    for (const { id } of own.slice(0, -this.#maxSessions)) await this.#take(id, 'replaced')
    return session
  }

  /** The session while it is live. */
  async find (id: string): Promise<Session | undefined> {
    const session = this.#live(id)
    return session || this.#ended.get(id) ? session : this.#ask(id)
  }

  /** The session if it is live and was opened with this fingerprint. */
  async check (id: string, fingerprint: string): Promise<Session | undefined> {
    const session = await this.find(id)
    return session && timingSafeEqual(digest(session.fingerprint), digest(fingerprint)) ? session : undefined
  }

  /** Whether there was such a session. */
  async end (id: string): Promise<boolean> {
    const session = await this.find(id)
    return session !== undefined && this.#take(id, 'logout')
  }

  /** Sets the PIN of a session that has none: of two at once only one does. */
  async setPin (id: string, pinHash: string): Promise<'set' | 'already-set' | 'not-found'> {
    const session = await this.find(id)
    if (!session) return 'not-found'
    if (session.pinHash !== null) return 'already-set'
    const isSet = await this.#state.store.put(entryOf({ ...session, pinHash }), JSON.stringify(session))
    if (isSet) return 'set'
    return await this.#ask(id) ? 'already-set' : 'not-found'
  }

  /** Ends the sessions that have expired; without it they end when they are next looked at. */
  async sweep (): Promise<void> {
    this.#sweep()
  }

  /** Calls `listener` once with every session that ends, in whichever process. Returns a function that stops it. */
  onEnd (listener: SessionEndListener): () => void {
    this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }

  /** Those that are opened in one millisecond end in their order too, so that the oldest can be told. */
  #nextEnd (): number {
    this.#lastEnd = Math.max(this.#now() + this.#timeoutMs, this.#lastEnd + 1)
    return this.#lastEnd
  }

  /** Another process may have opened it a moment ago: what the copy has not heard of, the store may know. */
  async #ask (id: string): Promise<Session | undefined> {
    const text = await this.#state.store.get(kind, id)
    if (text === undefined) this.#forget(id)
    else this.#put({ key: id, value: text })
    return this.#live(id)
  }

  #live (id: string): Session | undefined {
    const session = this.#sessions.get(id)
    if (!session || session.expiresAt > this.#now()) return session
    this.#end(session, 'expired')
  }

  #sweep () {
    for (const id of this.#sessions.keys()) this.#live(id)
  }

  async #take (id: string, reason: SessionEnd): Promise<boolean> {
    this.#reasons.set(id, reason)
    try {
      return await this.#state.store.take(kind, id) !== undefined
    } finally {
      this.#reasons.delete(id)
    }
  }

  #put ({ key, value }: { key: string, value: string }) {
    if (!this.#ended.get(key)) this.#sessions.set(key, sessionOf(value))
  }

  #removed (id: string) {
    const session = this.#live(id)
    if (session) this.#end(session, this.#reasons.get(id) ?? 'ended')
    else this.#forget(id)
  }

  #end (session: Session, reason: SessionEnd) {
    this.#sessions.delete(session.id)
    this.#forget(session.id)
    for (const listener of this.#listeners) listener(session, reason)
  }

  #forget (id: string) {
    this.#ended.set(id, true, this.#now() + this.#timeoutMs)
  }
}
