import { isProblem, problem } from '../errors.js'
import type { Clock } from '../lib/clock.js'
import { Emitter } from '../lib/emitter.js'
import { callHook, HookTimeoutError } from '../lib/hook-timeout.js'
import type { AuthenticateHook } from '../hooks.js'
import type { AuthEvent, Principal } from '../protocol/principal.js'
import { HostPrincipal } from '../protocol/schemas/claims.js'
import { matches } from '../protocol/validation.js'
import type { Attempts } from './attempts.js'
import type { AgentKey, KeyRing } from './keys.js'
import { AdminAccount, type Credentials, type PasswordHasher } from './passwords.js'
import type { Revocations, RevocationVerdict } from './revocations.js'
import { Pins, sessionInvalid, type Sessions } from './sessions.js'
import { tokenInvalid, type IssuedToken, type MintRequest, type Tokens } from './tokens.js'

export interface AuthorityOptions {
  tokens: Tokens
  keys: KeyRing
  sessions: Sessions
  revocations: Revocations
  attempts: Attempts
  passwords: PasswordHasher
  admin: { username: string, password?: string }
  now: Clock
  hookTimeoutMs: number
  /** Authenticates tokens that this registry did not issue. */
  authenticate?: AuthenticateHook
  /** The incarnation of a registered agent. */
  currentIncarnation: (agentId: string) => number | undefined
}

interface AuthorityEvents {
  /** A login, use of an agent key, logout, use of a PIN, or revocation. */
  audit: [event: AuthEvent]
}

export interface CheckOptions {
  /**
   * The purpose of the request. With `register`, the token of an agent that has unregistered is accepted. With
   * `unregister`, a revoked temporary token is accepted, so that a request that unregistered its agent can be repeated.
   */
  for?: 'register' | 'unregister'
  /** Accepts tokens of peers, which other endpoints refuse. */
  takesPeers?: boolean
  /** Accepts tokens of an older incarnation, for endpoints that answer them with an error of their own. */
  staleAllowed?: boolean
  /** If given, an admin's session must have been opened with it. */
  fingerprint?: string
}

/** `expires_in` is in seconds. */
interface LoginAnswer { access_token: string, token_type: 'bearer', expires_in: number, agent_id: string }
interface TempTokenAnswer { temp_token: string, token_type: 'bearer', expires_in: number, message: string }
interface TempTokenRequest { agentId?: string, agentType?: string, agentKey?: string, address: string }

const minKeyLength = 10

/** Authenticates principals by tokens, sessions, keys and passwords, for routes and sockets. */
export class Authority extends Emitter<AuthorityEvents> {
  /** PINs of admin sessions. */
  readonly pins: Pins
  readonly #options: AuthorityOptions
  readonly #admin: AdminAccount

  constructor (options: AuthorityOptions) {
    super()
    this.#options = options
    const { sessions, passwords, attempts } = options
    this.#admin = new AdminAccount({ ...options.admin, passwords, attempts })
    this.pins = new Pins({ sessions, passwords, attempts, onEvent: event => this.emit('audit', event) })
  }

  /**
   * Authenticates a token of this registry or, failing that, one that the host's hook accepts.
   * @throws token-invalid with a `reason`; session-invalid; hook-failed if the hook does not settle in time
   */
  async authenticate (token: string, options: CheckOptions = {}): Promise<Principal> {
    const principal = this.#verify(token) ?? await this.#callAuthenticate(token) ?? this.#options.tokens.verify(token)
    this.#checkToken(principal, options)
    if (principal.sessionId !== null) await this.#checkSession(principal, principal.sessionId, options.fingerprint)
    return principal
  }

  /**
   * Checks again a principal that was authenticated before: expiry, revocations, session and incarnation.
   * @throws token-invalid with a `reason`; session-invalid
   */
  async check (principal: Principal, options: CheckOptions = {}): Promise<void> {
    this.#checkToken(principal, options)
    if (principal.sessionId !== null) await this.#checkSession(principal, principal.sessionId, options.fingerprint)
  }

  /** The synchronous part, which is enough for nearly every request. */
  #checkToken (principal: Principal, options: CheckOptions) {
    if (principal.expiresAt !== null && principal.expiresAt * 1000 <= this.#options.now()) throw tokenInvalid('expired')
    if (principal.type === 'peer' && !options.takesPeers) throw problem('insufficient-permissions', 'Peer tokens are valid for /v1 only')
    const verdict = this.#options.revocations.check(principal)
    if (!isAccepted(verdict, principal, options)) throw tokenInvalid('revoked')
    if (!options.staleAllowed && this.#isStale(principal)) throw tokenInvalid('revoked')
  }

  /** @throws authentication-failed; rate-limit-exceeded */
  async login ({ fingerprint, ...credentials }: Credentials & { fingerprint: string }): Promise<LoginAnswer> {
    const { username, address } = credentials
    await this.#audited('login', { subject: username, address }, this.#admin.check(credentials))
    const { id, expiresAt } = await this.#options.sessions.open({ username, fingerprint, address })
    const issued = this.#options.tokens.issueAdmin({ username, sessionId: id, expiresAt })
    return { access_token: issued.token, token_type: 'bearer', expires_in: issued.expiresIn, agent_id: `user_${username}` }
  }

  /** Ends the session with all its tokens; revokes the token if it has no session. */
  async logout ({ sessionId, tokenId, expiresAt, subject }: Principal, address?: string): Promise<void> {
    if (sessionId === null) await this.#options.revocations.revokeToken(tokenId, expiresAt)
    else await this.#options.sessions.end(sessionId)
    this.emit('audit', { type: 'logout', subject, address })
  }

  /**
   * Revokes a token. An expired token counts as revoked (RFC 7009 §2.2).
   * @throws invalid-input for a text that is not a token of this registry
   */
  async revokeToken (by: Principal, token: string, address?: string): Promise<void> {
    const revoked = this.#revocable(token)
    if (!revoked) return
    await this.#options.revocations.revokeToken(revoked.tokenId, revoked.expiresAt)
    this.emit('audit', { type: 'token_revoked', subject: by.subject, target: revoked.subject, address })
  }

  /** Revokes all tokens of an agent, whether or not it is registered. */
  async revokeAgent (by: Principal, agentId: string, address?: string): Promise<void> {
    const { currentIncarnation, now, revocations } = this.#options
    await revocations.revokeAgent({ agentId, incarnation: currentIncarnation(agentId) ?? now(), mayRegister: false })
    this.emit('audit', { type: 'agent_revoked', subject: by.subject, target: agentId, address })
  }

  /**
   * Issues a token for registering one agent.
   * @throws invalid-input for missing members; authentication-failed for an unknown key; rate-limit-exceeded
   */
  async requestTempToken ({ agentId, agentType, agentKey, address }: TempTokenRequest): Promise<TempTokenAnswer> {
    if (!agentId || !agentType || !agentKey) throw invalidInput('agent_id, agent_type and agent_key are required', 'agent credentials')
    if (agentKey.length < minKeyLength) throw invalidInput(`agent_key must have at least ${minKeyLength} characters`, 'agent_key')
    const found = this.#options.attempts.attemptLocally({ kind: 'key', address }, () => this.#findKey(agentKey))
    const { digest } = await this.#audited('temp_token', { subject: agentId, address, details: { agent_type: agentType } }, found)
    const { token, expiresIn } = this.#options.tokens.issueTemp({ agentId, agentType, keyDigest: digest })
    const message = 'Temporary token issued. Use this token to complete agent registration.'
    return { temp_token: token, token_type: 'bearer', expires_in: expiresIn, message }
  }

  /**
   * Issues a token with the same claims and a new life. Tokens that the host's hook accepts are not refreshed here.
   * @throws token-invalid; session-invalid; insufficient-permissions for a temporary token
   */
  async refresh (token: string): Promise<IssuedToken> {
    const principal = this.#options.tokens.verify(token)
    await this.check(principal)
    return this.#options.tokens.refresh(principal, await this.#sessionEnd(principal))
  }

  /**
   * Mints a token on behalf of an admin. It ends with the admin's session.
   * @throws insufficient-permissions for another role; session-invalid
   */
  async mint (minter: Principal, request: Omit<MintRequest, 'sessionId' | 'endsAt'>): Promise<IssuedToken> {
    if (minter.role !== 'admin') throw problem('insufficient-permissions', 'Only an admin may mint tokens')
    const endsAt = await this.#sessionEnd(minter)
    return this.#options.tokens.mint({ ...request, sessionId: minter.sessionId, endsAt })
  }

  /** Emits an audit event with the outcome of an attempt. */
  async #audited<T> (attempt: 'login' | 'temp_token', event: Omit<AuthEvent, 'type'>, result: Promise<T>): Promise<T> {
    let outcome: 'success' | 'failed' | 'limited' = 'success'
    try {
      return await result
    } catch (error) {
      outcome = isProblem(error) && error.type === 'rate-limit-exceeded' ? 'limited' : 'failed'
      throw error
    } finally {
      this.emit('audit', { type: `${attempt}_${outcome}`, ...event })
    }
  }

  #revocable (token: string): Principal | undefined {
    try {
      return this.#options.tokens.verify(token)
    } catch (error) {
      if (isProblem(error) && 'reason' in error && error.reason === 'expired') return undefined
      throw invalidInput('The token was not issued by this registry', 'token')
    }
  }

  /** @returns undefined for an invalid token if the host has a hook that may accept it */
  #verify (token: string): Principal | undefined {
    if (!this.#options.authenticate) return this.#options.tokens.verify(token)
    try {
      return this.#options.tokens.verify(token)
    } catch {
      return undefined
    }
  }

  async #callAuthenticate (token: string): Promise<Principal | undefined> {
    const { authenticate, hookTimeoutMs } = this.#options
    if (!authenticate) return undefined
    try {
      const answer = await callHook('authenticate', hookTimeoutMs, () => authenticate(token))
      return matches(HostPrincipal, answer) ? Object.freeze({ ...answer, scopes: [...answer.scopes] }) : undefined
    } catch (error) {
      if (error instanceof HookTimeoutError) throw problem('hook-failed', 'The host application did not answer in time')
    }
  }

  /** The tokens of an agent end when a newer instance of it registers. */
  #isStale ({ type, agentId, incarnation }: Principal): boolean {
    if (type !== 'agent' || agentId === null || incarnation === null) return false
    return incarnation < (this.#options.currentIncarnation(agentId) ?? -Infinity)
  }

  async #checkSession ({ type }: Principal, sessionId: string, fingerprint: string | undefined) {
    const { sessions } = this.#options
    const isCompared = type === 'admin' && fingerprint !== undefined
    const session = isCompared ? await sessions.check(sessionId, fingerprint) : await sessions.find(sessionId)
    if (!session) throw sessionInvalid()
  }

  async #sessionEnd (principal: Principal): Promise<number | undefined> {
    if (principal.sessionId === null) return undefined
    const { expiresAt } = await this.pins.session(principal)
    return expiresAt
  }

  #findKey (text: string): AgentKey {
    const key = this.#options.keys.find(text)
    if (!key) throw problem('authentication-failed', 'Authentication failed: Invalid agent registration key')
    return key
  }
}

function isAccepted (verdict: RevocationVerdict, { type }: Principal, { for: purpose }: CheckOptions): boolean {
  if (verdict === 'ok' || (purpose === 'unregister' && type === 'temp')) return true
  return verdict === 'register-only' && purpose === 'register'
}

function invalidInput (detail: string, field: string) {
  return problem('invalid-input', detail, { members: { field } })
}
