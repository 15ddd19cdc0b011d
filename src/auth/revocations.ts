import { ExpiringMap } from '../expiring-map.js'
import type { Clock } from '../clock.js'
import type { Principal } from './principal.js'

export interface AgentRevocation {
  agentId: string
  incarnation: number
  /** The tokens that end may still register their own id again. */
  mayRegister: boolean
}

export type Revoked = { jti: string } | AgentRevocation
export type RevocationVerdict = 'ok' | 'register-only' | 'revoked'

export interface RevocationsOptions {
  /** Milliseconds; no token outlives its issue by more, so no entry has to be kept longer. */
  maxTokenLifeMs: number
  now: Clock
}

/** Tokens up to this incarnation; those without one if issued before `at` (epoch milliseconds). */
interface Mark { incarnation: number, at: number }
interface Marks { all?: Mark, butRegister?: Mark }

function covers (mark: Mark | undefined, { incarnation, issuedAt }: Principal): boolean {
  if (!mark) return false
  return incarnation === null ? (issuedAt ?? 0) < mark.at : incarnation <= mark.incarnation
}

/** What has ended before its time: single tokens, and all tokens of an agent up to an incarnation. */
export class Revocations {
  readonly #maxTokenLifeMs: number
  readonly #now: Clock
  readonly #tokens: ExpiringMap<true>
  readonly #agents: ExpiringMap<Marks>
  readonly #listeners = new Set<(revoked: Revoked) => void>()

  constructor ({ maxTokenLifeMs, now }: RevocationsOptions) {
    this.#maxTokenLifeMs = maxTokenLifeMs
    this.#now = now
    this.#tokens = new ExpiringMap(now)
    this.#agents = new ExpiringMap(now)
  }

  /** Number of entries that are kept. */
  get size () { return this.#tokens.size + this.#agents.size }

  /** `expiresAt` is in epoch seconds; null for a token that does not say. */
  revokeToken (jti: string, expiresAt: number | null) {
    this.#tokens.set(jti, true, expiresAt === null ? this.#now() + this.#maxTokenLifeMs : expiresAt * 1000)
    this.#emit({ jti })
  }

  /**
   * Ends every token of the agent with this incarnation, a lower one or none. A later call adds to earlier ones: what
   * was ended altogether stays so.
   */
  revokeAgent ({ agentId, incarnation, mayRegister }: AgentRevocation) {
    const now = this.#now()
    const marks = this.#agents.get(agentId) ?? {}
    const member = mayRegister ? 'butRegister' : 'all'
    const mark = { incarnation: Math.max(incarnation, marks[member]?.incarnation ?? incarnation), at: now }
    this.#agents.set(agentId, { ...marks, [member]: mark }, now + this.#maxTokenLifeMs)
    this.#emit({ agentId, incarnation, mayRegister })
  }

  /** Only tokens of agents end with their agent: an admin or user may bear an id that looks like one. */
  check (principal: Principal): RevocationVerdict {
    if (this.#tokens.get(principal.tokenId)) return 'revoked'
    const isAgent = principal.role === 'agent' && principal.agentId !== null
    const marks = isAgent ? this.#agents.get(principal.agentId!) : undefined
    if (covers(marks?.all, principal)) return 'revoked'
    return covers(marks?.butRegister, principal) ? 'register-only' : 'ok'
  }

  /** Drops what no token can outlive; happens by itself as entries are added. */
  sweep () {
    this.#tokens.sweep()
    this.#agents.sweep()
  }

  /** Calls `listener` with everything that is revoked. Returns a function that stops it. */
  onRevoke (listener: (revoked: Revoked) => void): () => void {
    this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }

  #emit (revoked: Revoked) {
    for (const listener of this.#listeners) listener(revoked)
  }
}
