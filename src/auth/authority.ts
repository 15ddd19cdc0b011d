import { callHook, HookTimeoutError } from '../lib/hook-timeout.js'
import { isProblem, problem } from '../errors.js'
import { isHostPrincipal } from '../protocol/schemas/claims.js'
import { AdminAccount, type Credentials, type PasswordHasher } from './passwords.js'
import { tokenInvalid, type IssuedToken, type MintRequest, type TokenProblem, type Tokens } from './tokens.js'
import type { AuthenticateHook } from '../options.js'
import type { Clock } from '../lib/clock.js'
import type { Attempts } from './attempts.js'
import type { KeyRing } from './keys.js'
import type { AuthEventListener, Principal } from '../protocol/principal.js'
import type { Revocations, RevocationVerdict } from './revocations.js'
import { Pins, sessionInvalid, type Session, type Sessions } from './sessions.js'

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
  /** Hears of logins, uses of agent keys, logouts, PINs and revocations. */
  onEvent?: AuthEventListener
  /** The host's own check of tokens that are not ours. */
  authenticate?: AuthenticateHook
  /** Incarnation of an agent that is registered. */
  currentIncarnation: (agentId: string) => number | undefined
}

export interface CheckOptions {
  /**
   * What the token is used for: an agent that has left may only register itself again, and a temporary token that has
   * unregistered its agent, and ended with it, may ask for the same again.
   */
  for?: 'register' | 'unregister'
  /** Takes tokens of peers, which are good for nothing else. */
  takesPeers?: boolean
  /** Lets tokens of an older incarnation pass, where those have an answer of their own. */
  staleAllowed?: boolean
  /** When given, an admin's session must have been opened with it. */
  fingerprint?: string
}

/** `expires_in` is in seconds. */
export interface LoginAnswer { access_token: string, token_type: 'bearer', expires_in: number, agent_id: string }
export interface TempTokenAnswer { temp_token: string, token_type: 'bearer', expires_in: number, message: string }
export interface TempTokenRequest { agentId?: string, agentType?: string, agentKey?: string, address: string }

/** Who tries something, and from where. */
interface Trier { subject: string, address: string, details?: Record<string, unknown> }

const minimumKeyLength = 10

/** Who may come in: ties tokens, sessions, keys and limits together for routes and sockets. */
export class Authority {
  readonly #options: AuthorityOptions
  readonly #admin: AdminAccount
  readonly #pins: Pins

  constructor (options: AuthorityOptions) {
    this.#options = options
    this.#admin = new AdminAccount({ ...options.admin, passwords: options.passwords, attempts: options.attempts })
    this.#pins = new Pins(options)
  }

  /**
   * Who bears `token`: one of ours or, failing that, one that the host's hook accepts.
   * @throws token-invalid with a `reason`; session-invalid; hook-failed when the host does not answer in time.
   */
  async authenticate (token: string, options: CheckOptions = {}): Promise<Principal> {
    const principal = this.#verify(token) ?? await this.#askHost(token) ?? this.#options.tokens.verify(token)
    this.#checkToken(principal, options)
    if (principal.sessionId !== null) await this.#checkSession(principal, principal.sessionId, options.fingerprint)
    return principal
  }

  /**
   * Whether a principal that was authenticated before may still come in: its life, revocations, session and incarnation.
   * @throws token-invalid with a `reason`; session-invalid.
   */
  async check (principal: Principal, options: CheckOptions = {}): Promise<void> {
    this.#checkToken(principal, options)
    if (principal.sessionId !== null) await this.#checkSession(principal, principal.sessionId, options.fingerprint)
  }

  /** What can be said without waiting: nearly every request is let in by this alone. */
  #checkToken (principal: Principal, options: CheckOptions) {
    if (principal.expiresAt !== null && principal.expiresAt * 1000 <= this.#options.now()) throw tokenInvalid('expired')
    if (principal.type === 'peer' && !options.takesPeers) throw problem('insufficient-permissions', 'The token of a peer works on /v1 only')
    const verdict = this.#options.revocations.check(principal)
    if (!isPassed(verdict, principal, options)) throw tokenInvalid('revoked')
    if (!options.staleAllowed && this.#isStale(principal)) throw tokenInvalid('revoked')
  }

  /** @throws authentication-failed; rate-limit-exceeded. */
  async login ({ fingerprint, ...credentials }: Credentials & { fingerprint: string }): Promise<LoginAnswer> {
    const { username, address } = credentials
    await this.#told('login', { subject: username, address }, this.#admin.check(credentials))
    const { id, expiresAt } = await this.#options.sessions.open({ username, fingerprint, address })
    const issued = this.#options.tokens.issueAdmin({ username, sessionId: id, expiresAt })
    return { access_token: issued.token, token_type: 'bearer', expires_in: issued.expiresIn, agent_id: `user_${username}` }
  }

  /** Ends the session, and with it every token of it; without a session the token itself. */
  async logout ({ sessionId, tokenId, expiresAt, subject }: Principal, address?: string): Promise<void> {
    if (sessionId === null) await this.#options.revocations.revokeToken(tokenId, expiresAt)
    else await this.#options.sessions.end(sessionId)
    this.#options.onEvent?.({ type: 'logout', subject, address })
  }

  /**
   * Ends a token before its time; one that has expired is as good as revoked (RFC 7009 §2.2).
   * @throws invalid-input for what is no token of this registry
   */
  async revokeToken (by: Principal, token: string, address?: string): Promise<void> {
    const revoked = this.#revocable(token)
    if (!revoked) return
    await this.#options.revocations.revokeToken(revoked.tokenId, revoked.expiresAt)
    this.#options.onEvent?.({ type: 'token_revoked', subject: by.subject, target: revoked.subject, address })
  }

  /** Ends every token that an agent has, whether or not it is registered. */
  async revokeAgent (by: Principal, agentId: string, address?: string): Promise<void> {
    const { currentIncarnation, now, revocations, onEvent } = this.#options
    await revocations.revokeAgent({ agentId, incarnation: currentIncarnation(agentId) ?? now(), mayRegister: false })
    onEvent?.({ type: 'agent_revoked', subject: by.subject, target: agentId, address })
  }

  /**
   * A token for registering one agent.
   * @throws invalid-input for what is missing; authentication-failed for a wrong key; rate-limit-exceeded.
   */
  async requestTempToken ({ agentId, agentType, agentKey, address }: TempTokenRequest): Promise<TempTokenAnswer> {
    if (!agentId || !agentType || !agentKey) throw invalidInput('agent_id, agent_type and agent_key are required', 'agent credentials')
    if (agentKey.length < minimumKeyLength) throw invalidInput(`agent_key must have at least ${minimumKeyLength} characters`, 'agent_key')
    const { digest } = await this.#told('temp_token', { subject: agentId, address, details: { agent_type: agentType } }, this.#options.attempts.attemptNow({ kind: 'key', address }, () => this.#findKey(agentKey)))
    const { token, expiresIn } = this.#options.tokens.issueTemp({ agentId, agentType, keyDigest: digest })
    const message = 'Temporary token issued. Use this token to complete agent registration.'
    return { temp_token: token, token_type: 'bearer', expires_in: expiresIn, message }
  }

  /**
   * A token with the same claims and a fresh life. Only for tokens of ours: what the host knows is for the host to renew.
   * @throws token-invalid; session-invalid; insufficient-permissions for a temporary token.
   */
  async refresh (token: string): Promise<IssuedToken> {
    const principal = this.#options.tokens.verify(token)
    await this.check(principal)
    return this.#options.tokens.refresh(principal, await this.#sessionEnd(principal))
  }

  /**
   * A token made by an admin, which ends with the admin's session.
   * @throws insufficient-permissions for anybody else; session-invalid.
   */
  async mint (minter: Principal, request: Omit<MintRequest, 'sessionId' | 'endsAt'>): Promise<IssuedToken> {
    if (minter.role !== 'admin') throw problem('insufficient-permissions', 'Only an admin may mint tokens')
    const endsAt = await this.#sessionEnd(minter)
    return this.#options.tokens.mint({ ...request, sessionId: minter.sessionId, endsAt })
  }

  /** The live session of an admin. @throws session-invalid */
  session (principal: Principal): Promise<Session> {
    return this.#pins.session(principal)
  }

  /** @throws validation-failed; pin-already-set; session-invalid; rate-limit-exceeded. */
  setPin (principal: Principal, pin: string, address?: string): Promise<void> {
    return this.#pins.set(principal, pin, address)
  }

  /** @throws validation-failed; pin-not-set; pin-incorrect; session-invalid; rate-limit-exceeded. */
  verifyPin (principal: Principal, pin: string, address: string): Promise<void> {
    return this.#pins.verify(principal, pin, address)
  }

  /** @throws session-invalid */
  pinStatus (principal: Principal): Promise<{ pin_set: boolean }> {
    return this.#pins.status(principal)
  }

  /** Passes when the session has no PIN or this is it. @throws pin-required; pin-incorrect; rate-limit-exceeded. */
  requirePin (principal: Principal, pin: string | undefined, address: string): Promise<void> {
    return this.#pins.require(principal, pin, address)
  }

  /** The result of an attempt, which somebody is told of. */
  async #told<T> (attempt: 'login' | 'temp_token', trier: Trier, result: Promise<T>): Promise<T> {
    let outcome: 'success' | 'failed' | 'limited' = 'success'
    try {
      return await result
    } catch (error) {
      outcome = isProblem(error) && error.type === 'rate-limit-exceeded' ? 'limited' : 'failed'
      throw error
    } finally {
      this.#options.onEvent?.({ type: `${attempt}_${outcome}`, ...trier })
    }
  }

  #revocable (token: string): Principal | undefined {
    try {
      return this.#options.tokens.verify(token)
    } catch (error) {
      if ((error as TokenProblem).reason === 'expired') return undefined
      throw invalidInput('The token is not one of this registry', 'token')
    }
  }

  /** Undefined for a token that is not ours, or not valid any more: only with a host to ask does that matter. */
  #verify (token: string): Principal | undefined {
    if (!this.#options.authenticate) return this.#options.tokens.verify(token)
    try {
      return this.#options.tokens.verify(token)
    } catch {
      return undefined
    }
  }

  async #askHost (token: string): Promise<Principal | undefined> {
    const { authenticate, hookTimeoutMs } = this.#options
    if (!authenticate) return undefined
    try {
      const answer = await callHook('authenticate', hookTimeoutMs, () => authenticate(token))
      return isHostPrincipal(answer) ? Object.freeze({ ...answer, scopes: [...answer.scopes] }) : undefined
    } catch (error) {
      if (error instanceof HookTimeoutError) throw problem('hook-failed', 'The host did not answer in time')
    }
  }

  /** An agent's token ends when a newer instance of the agent registers. */
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
    const { expiresAt } = await this.#pins.session(principal)
    return expiresAt
  }

  #findKey (text: string) {
    const key = this.#options.keys.find(text)
    if (!key) throw problem('authentication-failed', 'Authentication failed: Invalid agent registration key')
    return key
  }
}

function isPassed (verdict: RevocationVerdict, { type }: Principal, { for: use }: CheckOptions): boolean {
  if (verdict === 'ok' || (use === 'unregister' && type === 'temp')) return true
  return verdict === 'register-only' && use === 'register'
}

function invalidInput (detail: string, field: string) {
  return problem('invalid-input', detail, { members: { field } })
}
