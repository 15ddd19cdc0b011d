import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { problem, type ProblemError } from '../errors.js'
import type { Clock } from '../lib/clock.js'
import type { Principal, Role, TokenType } from '../protocol/principal.js'
import { Claims } from '../protocol/schemas/claims.js'
import type { Grant } from '../protocol/schemas/messaging.js'
import type { PeerTokenBody } from '../protocol/schemas/peers.js'
import { matches } from '../protocol/validation.js'
import { ExpiringMap } from '../lib/expiring-map.js'
import { RunOnce } from '../lib/run-once.js'
import type { KeyValueKind, KeyValueStore } from '../storage/kv-store.js'

/** Signs tokens and verifies their signature and algorithm. The claims are checked by `Tokens`. */
export interface Signer {
  sign (claims: Claims): string
  /** @returns the claims. @throws for a wrong signature or algorithm */
  verify (token: string): unknown
}

interface TokensOptions {
  signer: Signer
  namespace: string
  /** Life of agent and user tokens in milliseconds. */
  expiresInMs: number
  /** Epoch milliseconds. */
  now: Clock
}

/** A new token. `expiresIn` is in seconds, `expiresAt` in epoch seconds. */
export interface IssuedToken { token: string, tokenId: string, expiresIn: number, expiresAt: number }

/** The reason why a token is refused. A socket is closed with 4002 for `expired` and with 4001 for the others. */
type TokenRefusal = 'invalid' | 'expired' | 'revoked'
export interface TokenProblem extends ProblemError { reason: TokenRefusal }

/** Roles whose tokens an admin can mint and a client can refresh. */
type RefreshableRole = Exclude<Role, 'peer'>

export interface MintRequest {
  subject: string
  agentId: string
  role: RefreshableRole
  scopes: readonly string[]
  sessionId: string | null
  incarnation: number | null
  agentType?: string | null
  keyDigest?: string | null
  grants?: readonly Grant[] | null
  metadata?: Readonly<Record<string, unknown>> | null
  /** Epoch milliseconds after which the token must not be valid, such as the end of its session. */
  endsAt?: number
}

/** A token for a peer, which ends with the session or the tokens of its minter. `lifeMs` is in milliseconds. */
interface PeerTokenRequest extends Omit<PeerTokenBody, 'expiresInSec'> {
  lifeMs: number
  minter: Pick<Principal, 'agentId' | 'incarnation' | 'sessionId'>
}

type TokenSubject =
  Pick<Principal, 'subject' | 'agentId' | 'scopes' | 'sessionId' | 'incarnation' | 'agentType' | 'grants' | 'metadata'> &
  { keyDigest?: string | null }
interface TokenDraft { typ: TokenType, sub: string, lifeMs: number, rest: Partial<Claims> }

const tempLifeMs = 900_000
const roleOf: Record<TokenType, Role> = { temp: 'agent', agent: 'agent', user: 'user', admin: 'admin', peer: 'peer' }
const audienceOf: Record<TokenType, string> = {
  temp: 'arcp:validate',
  agent: 'arcp:operations',
  user: 'arcp:operations',
  admin: 'arcp:operations',
  peer: 'arcp:peer'
}

export function tokenInvalid (reason: TokenRefusal, detail = 'Invalid or expired token'): TokenProblem {
  return Object.assign(problem('token-invalid', detail), { reason })
}

/** Whether a token has the claims that its type requires. */
function isComplete (claims: Claims): boolean {
  if (claims.typ === 'admin') return claims.sid !== undefined
  if (claims.typ === 'temp') return claims.agent_id !== undefined && claims.key !== undefined
  if (claims.typ === 'peer') return claims.channels !== undefined && claims.permissions !== undefined
  return claims.typ === 'user' || claims.agent_id !== undefined
}

function toPrincipal (claims: Claims): Principal {
  return {
    type: claims.typ,
    role: claims.role,
    subject: claims.sub,
    agentId: claims.agent_id ?? null,
    incarnation: claims.inc ?? null,
    tokenId: claims.jti,
    sessionId: claims.sid ?? null,
    expiresAt: claims.exp,
    scopes: claims.scopes ?? [],
    keyDigest: claims.key ?? null,
    agentType: claims.agent_type ?? null,
    issuedAt: claims.iat_ms ?? claims.iat * 1000,
    grants: claims.grants ?? null,
    metadata: claims.metadata ?? null,
    ...(claims.typ === 'peer' && peerMembers(claims))
  }
}

function peerMembers ({ channels = [], permissions = [], metadata, peerMetadata }: Claims) {
  return { grants: [{ channels, allow: permissions }], metadata: peerMetadata ?? null, ownMetadata: metadata ?? null }
}

/** A token does not contain members that are null or undefined. */
function present (claims: Record<string, unknown>): Partial<Claims> {
  return Object.fromEntries(Object.entries(claims).filter(([, value]) => value !== null && value !== undefined))
}

/** Issues and verifies the tokens of one namespace (JSON Web Tokens, RFC 7519). */
export class Tokens {
  readonly #signer: Signer
  readonly #issuer: string
  readonly #expiresInMs: number
  readonly #now: Clock
  readonly #verified = new VerifiedTokens()

  constructor ({ signer, namespace, expiresInMs, now }: TokensOptions) {
    this.#signer = signer
    this.#issuer = `agent-registry:${namespace}`
    this.#expiresInMs = expiresInMs
    this.#now = now
  }

  /** A token that is valid for 900 s and for registering `agentId` with the key of `keyDigest`. */
  issueTemp ({ agentId, agentType, keyDigest }: { agentId: string, agentType: string, keyDigest: string }): IssuedToken {
    const registration = { agent_id: agentId, agent_type: agentType.toLowerCase(), key: keyDigest, scopes: [] }
    const rest = { ...registration, temp_registration: true, token_type: 'temp' }
    return this.#issue({ typ: 'temp', sub: `temp_${agentId}`, lifeMs: tempLifeMs, rest })
  }

  /** @param request.keyDigest the key that owns the agent, also after it has unregistered and registers again */
  issueAgent (request: { agentId: string, incarnation: number, keyDigest?: string | null }): IssuedToken {
    const { agentId, incarnation, keyDigest = null } = request
    const rest = present({ agent_id: agentId, inc: incarnation, scopes: [], key: keyDigest })
    return this.#issue({ typ: 'agent', sub: agentId, lifeMs: this.#expiresInMs, rest })
  }

  /** @param request.expiresAt the end of the session in epoch milliseconds */
  issueAdmin ({ username, sessionId, expiresAt }: { username: string, sessionId: string, expiresAt: number }): IssuedToken {
    const rest = { agent_id: `user_${username}`, sid: sessionId, scopes: ['admin', 'agent_management'] }
    return this.#issue({ typ: 'admin', sub: username, lifeMs: expiresAt - this.#now(), rest })
  }

  /** A token for `/v1`. It ends with the session of its minter, and with the tokens of an agent that minted it. */
  issuePeer ({ peerId, lifeMs, minter: { agentId, incarnation, sessionId }, ...rest }: PeerTokenRequest): IssuedToken {
    const minter = { agent_id: agentId, inc: incarnation, sid: sessionId }
    return this.#issue({ typ: 'peer', sub: peerId, lifeMs, rest: present({ ...rest, ...minter }) })
  }

  /** @throws insufficient-permissions for an admin token without a session, since nothing could end it */
  mint ({ role, endsAt, ...request }: MintRequest): IssuedToken {
    return this.#issueFor(role, request, endsAt ?? Infinity)
  }

  /**
   * A new token with the claims of `principal` and a new life. With a session it ends at `sessionEndsAt` (epoch
   * milliseconds) at the latest; without that value, when the old token ends.
   * @throws insufficient-permissions for a temporary or peer token, and for an admin without a session
   */
  refresh (principal: Principal, sessionEndsAt?: number): IssuedToken {
    const { type, sessionId, expiresAt } = principal
    if (type === 'temp' || type === 'peer') {
      throw problem('insufficient-permissions', `A ${type === 'temp' ? 'temporary' : 'peer'} token cannot be refreshed`)
    }
    return this.#issueFor(type, principal, sessionId === null ? Infinity : sessionEndsAt ?? (expiresAt ?? 0) * 1000)
  }

  /** @throws token-invalid with a `reason` */
  verify (token: string): Principal {
    const known = this.#verified.get(token)
    if (known && !this.#isExpired(known)) return known
    this.#verified.delete(token)
    const principal = toPrincipal(this.claims(token))
    this.#verified.set(token, principal)
    return principal
  }

  /** The claims of a token that is valid now. @throws token-invalid with a `reason` */
  claims (token: string): Claims {
    const claims = this.#verifySignature(token)
    const isOwn = matches(Claims, claims) && claims.iss === this.#issuer && claims.aud === audienceOf[claims.typ] &&
      claims.role === roleOf[claims.typ] && isComplete(claims)
    if (!isOwn) throw tokenInvalid('invalid')
    if (claims.exp * 1000 <= this.#now()) throw tokenInvalid('expired')
    return claims
  }

  #isExpired ({ expiresAt }: Principal): boolean {
    return expiresAt !== null && expiresAt * 1000 <= this.#now()
  }

  #verifySignature (token: string): unknown {
    try {
      return this.#signer.verify(token)
    } catch {
      throw tokenInvalid('invalid')
    }
  }

  #issueFor (
    typ: RefreshableRole,
    { subject, agentId, scopes, sessionId, incarnation, agentType, keyDigest, grants, metadata }: TokenSubject,
    endsAt: number
  ): IssuedToken {
    if (typ === 'admin' && sessionId === null) throw problem('insufficient-permissions', 'An admin token needs a session')
    const lifeMs = Math.min(this.#expiresInMs, endsAt - this.#now())
    const rest = present({
      agent_id: agentId, scopes: [...scopes], sid: sessionId, inc: incarnation, agent_type: agentType, key: keyDigest, grants, metadata
    })
    return this.#issue({ typ, sub: subject, lifeMs, rest })
  }

  #issue ({ typ, sub, lifeMs, rest }: TokenDraft): IssuedToken {
    const now = this.#now()
    const iat = Math.floor(now / 1000)
    const exp = Math.floor((now + lifeMs) / 1000)
    if (exp * 1000 <= now) throw tokenInvalid('expired')
    const jti = randomUUID()
    const claims = { iss: this.#issuer, aud: audienceOf[typ], sub, jti, typ, role: roleOf[typ], iat, exp, iat_ms: now, ...rest }
    const token = this.#signer.sign(claims)
    return { token, tokenId: jti, expiresIn: exp - iat, expiresAt: exp }
  }
}

/**
 * A cache of tokens whose signature and claims were verified: an agent sends the same token with every heartbeat. It
 * does not cover revocations, sessions and incarnations, which are checked for every request.
 *
 * It has two generations instead of an order: when the newer one is full, it replaces the older one. Tokens in use stay,
 * and no entry is ever deleted from the front of a large Map, which would have to skip all deleted entries before it.
 */
export class VerifiedTokens {
  readonly #limit: number
  #newer = new Map<string, Principal>()
  #older = new Map<string, Principal>()

  /** @param limit at least this many of the last used tokens are kept, and at most twice as many */
  constructor (limit = 10_000) {
    this.#limit = limit
  }

  get (token: string): Principal | undefined {
    const known = this.#newer.get(token)
    if (known) return known
    const older = this.#older.get(token)
    if (older) this.set(token, older)
    return older
  }

  set (token: string, principal: Principal): void {
    if (this.#newer.size >= this.#limit) {
      this.#older = this.#newer
      this.#newer = new Map()
    }
    this.#newer.set(token, principal)
  }

  delete (token: string): void {
    this.#newer.delete(token)
    this.#older.delete(token)
  }
}

/** A request that uses up a temporary token. */
export interface OneTimeRequest<T, R> {
  /** Identifies the request, for instance a hash of method, path and body. */
  key: string
  run: () => Promise<T>
  /** The JSON value from which another process repeats the response. */
  record: (result: T) => R
  /** The response of another process, from its record. */
  replay: (recorded: R) => Promise<T> | T
}

interface SharedResult { request: string, result: Promise<unknown> }

const tokenLifeMs = 900_000
/** How long the request that used up a token may be repeated. */
const repeatMs = 60_000
/** How long a request may run before another process may use the token. */
const runMs = 60_000
const pollMs = 50

const ignore = () => {}

/**
 * Temporary tokens are valid for one successful request, and for repeating that request within a minute, at any process.
 * If a process ends while its request runs, the token can be used again after a minute; the registry then treats the
 * repeated request like one with another token of the same key. Records are not limited in number: a token whose record
 * was dropped could be used twice. The rate limit of registrations and the life of a token bound them.
 */
export class OneTimeTokens {
  readonly #runOnce: RunOnce<KeyValueKind>
  readonly #now: Clock
  readonly #waitMs: number
  readonly #running = new Map<string, SharedResult>()
  readonly #completed: ExpiringMap<SharedResult>

  /** @param options.waitMs how long a request waits for one that another process runs */
  constructor ({ kv, now, waitMs = 10_000 }: { kv: KeyValueStore, now: Clock, waitMs?: number }) {
    this.#runOnce = new RunOnce({ store: kv, kind: 'spent', now, keptMs: tokenLifeMs })
    this.#now = now
    this.#waitMs = waitMs
    this.#completed = new ExpiringMap(now)
  }

  /**
   * Runs a request with a temporary token. The same request shares the result of one that runs or has succeeded; a
   * different one waits for the one that runs.
   * @throws token-invalid if another request has used the token; whatever `run` throws, which leaves the token unused
   */
  async use<T, R> (tokenId: string, request: OneTimeRequest<T, R>): Promise<T> {
    let running = this.#running.get(tokenId)
    while (running && running.request !== request.key) {
      await running.result.catch(ignore)
      running = this.#running.get(tokenId)
    }
    const shared = running ?? this.#completed.get(tokenId)
    // Equal keys mean equal requests, which have results of one type.
    if (shared?.request === request.key) return shared.result as Promise<T>
    const result = this.#run(tokenId, request)
    this.#running.set(tokenId, { request: request.key, result })
    return result
  }

  async #run<T, R> (tokenId: string, request: OneTimeRequest<T, R>): Promise<T> {
    try {
      const claim = await this.#claim(tokenId, request.key)
      if (claim.state === 'done') return await this.#repeat(claim, request)
      const result = await this.#runOnce.run(claim, request.run, request.record)
      this.#completed.set(tokenId, { request: request.key, result: Promise.resolve(result) }, this.#now() + repeatMs)
      return result
    } finally {
      this.#running.delete(tokenId)
    }
  }

  /** Waits while another process uses the token. */
  async #claim (tokenId: string, request: string) {
    for (let polls = 0; polls < this.#waitMs / pollMs; polls++) {
      const claim = await this.#runOnce.claim({ key: tokenId, request, owner: tokenId, runMs })
      if (claim.state !== 'running') return claim
      await sleep(pollMs)
    }
    throw tokenInvalid('invalid', 'This temporary token is in use')
  }

  #repeat<T, R> (
    { request, at, value }: { request: string, at: number, value: unknown }, { key, replay }: OneTimeRequest<T, R>
  ): Promise<T> | T {
    if (request !== key || at + repeatMs <= this.#now()) throw tokenInvalid('invalid', 'This temporary token has been used')
    // The record of the same request was made by the same `record` function.
    return replay(value as R)
  }
}
