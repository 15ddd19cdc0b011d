import type { Clock } from '../lib/clock.js'
import { Emitter } from '../lib/emitter.js'
import { ExpiringMap } from '../lib/expiring-map.js'
import type { KeyValueReplica } from '../storage/kv-store.js'
import type { Principal } from '../protocol/principal.js'

/** Revokes the tokens of an agent up to an incarnation. */
interface AgentRevocation {
  agentId: string
  incarnation: number
  /** The revoked tokens may still register the same agent again. */
  mayRegister: boolean
}

export type Revoked = { jti: string } | AgentRevocation
export type RevocationVerdict = 'ok' | 'register-only' | 'revoked'

interface RevocationEvents {
  /** A token or the tokens of an agent were revoked, by any process. Emitted once for each revocation. */
  revoked: [revoked: Revoked]
}

interface RevocationsOptions {
  kvReplica: KeyValueReplica
  /** Milliseconds. No token lives longer, so no entry has to be kept longer. */
  maxTokenLifeMs: number
  now: Clock
}

/** Covers tokens up to `incarnation`, and tokens without one that were issued before `at` (epoch milliseconds). */
interface Mark { incarnation: number, at: number }
interface Marks { all?: Mark, butRegister?: Mark }

const tokenKind = 'revoked-token'
const agentKind = 'revoked-agent'
/** A revocation stays in the local copy even if its entry disappears from the store. */
const neverRemoved = { removed () {}, keys: () => [] }

const parseMarks = (text: string): Marks => JSON.parse(text)

function covers (mark: Mark | undefined, { incarnation, issuedAt }: Principal): boolean {
  if (!mark) return false
  return incarnation === null ? (issuedAt ?? 0) < mark.at : incarnation <= mark.incarnation
}

function isSame (a: Mark | undefined, b: Mark | undefined): boolean {
  return a?.incarnation === b?.incarnation && a?.at === b?.at
}

/** Adds a revocation to earlier ones. */
function withMark (marks: Marks, { incarnation, mayRegister }: AgentRevocation, at: number): Marks {
  const member = mayRegister ? 'butRegister' : 'all'
  return { ...marks, [member]: { incarnation: Math.max(incarnation, marks[member]?.incarnation ?? incarnation), at } }
}

/**
 * Revoked tokens: single ones, and all tokens of an agent up to an incarnation. All processes share them. Each process
 * answers from a local copy, which keeps a revocation until every token that it covers has expired.
 */
export class Revocations extends Emitter<RevocationEvents> {
  readonly #kvReplica: KeyValueReplica
  readonly #maxTokenLifeMs: number
  readonly #now: Clock
  readonly #tokens: ExpiringMap<true>
  readonly #agents: ExpiringMap<Marks>

  constructor ({ kvReplica, maxTokenLifeMs, now }: RevocationsOptions) {
    super()
    this.#kvReplica = kvReplica
    this.#maxTokenLifeMs = maxTokenLifeMs
    this.#now = now
    this.#tokens = new ExpiringMap(now)
    this.#agents = new ExpiringMap(now)
    kvReplica.attach(tokenKind, { put: ({ key, until }) => this.#putToken(key, until), ...neverRemoved })
    kvReplica.attach(agentKind, { put: ({ key, value, until }) => this.#putAgent(key, parseMarks(value), until), ...neverRemoved })
  }

  /** Number of entries in the local copy. */
  get size () { return this.#tokens.size + this.#agents.size }

  /** @param expiresAt epoch seconds; null for a token without an expiry */
  async revokeToken (jti: string, expiresAt: number | null): Promise<void> {
    const until = expiresAt === null ? this.#now() + this.#maxTokenLifeMs : expiresAt * 1000
    await this.#kvReplica.store.put({ kind: tokenKind, key: jti, value: '', until })
  }

  /**
   * Revokes every token of the agent with this incarnation, a lower one or none. Later calls add to earlier ones, also
   * when two processes revoke at the same time: tokens that may not register stay so.
   */
  async revokeAgent (revocation: AgentRevocation): Promise<void> {
    const { agentId } = revocation
    const now = this.#now()
    const known = this.#agents.get(agentId)
    let text = known ? JSON.stringify(known) : null
    for (;;) {
      const value = JSON.stringify(withMark(text === null ? {} : parseMarks(text), revocation, now))
      if (await this.#kvReplica.store.put({ kind: agentKind, key: agentId, value, until: now + this.#maxTokenLifeMs }, text)) return
      text = await this.#kvReplica.store.get(agentKind, agentId) ?? null
    }
  }

  /**
   * Whether a principal's token is revoked. Revocations of an agent cover tokens of the agent and those that it minted
   * for peers, not those of a user or admin with the same id.
   */
  check (principal: Principal): RevocationVerdict {
    if (this.#tokens.get(principal.tokenId)) return 'revoked'
    const isAgent = (principal.role === 'agent' || principal.role === 'peer') && principal.agentId !== null
    const marks = isAgent ? this.#agents.get(principal.agentId) : undefined
    if (covers(marks?.all, principal)) return 'revoked'
    return covers(marks?.butRegister, principal) ? 'register-only' : 'ok'
  }

  /** Drops expired entries. The maps also do so when entries are added. */
  sweep () {
    this.#tokens.sweep()
    this.#agents.sweep()
  }

  #putToken (jti: string, until: number) {
    const isNew = !this.#tokens.get(jti)
    this.#tokens.set(jti, true, until)
    if (isNew) this.emit('revoked', { jti })
  }

  #putAgent (agentId: string, marks: Marks, until: number) {
    const { all, butRegister } = marks
    const before = this.#agents.get(agentId) ?? {}
    this.#agents.set(agentId, marks, until)
    if (all && !isSame(all, before.all)) this.emit('revoked', { agentId, incarnation: all.incarnation, mayRegister: false })
    if (butRegister && !isSame(butRegister, before.butRegister)) {
      this.emit('revoked', { agentId, incarnation: butRegister.incarnation, mayRegister: true })
    }
  }
}
