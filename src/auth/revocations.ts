import { ExpiringMap } from '../lib/expiring-map.js'
import type { Clock } from '../lib/clock.js'
import type { Principal } from './principal.js'
import type { KeyValueReplica } from '../storage/kv-replica.js'

export interface AgentRevocation {
  agentId: string
  incarnation: number
  /** The tokens that end may still register their own id again. */
  mayRegister: boolean
}

export type Revoked = { jti: string } | AgentRevocation
export type RevocationVerdict = 'ok' | 'register-only' | 'revoked'

export interface RevocationsOptions {
  state: KeyValueReplica
  /** Milliseconds; no token outlives its issue by more, so no entry has to be kept longer. */
  maxTokenLifeMs: number
  now: Clock
}

/** Tokens up to this incarnation; those without one if issued before `at` (epoch milliseconds). */
interface Mark { incarnation: number, at: number }
interface Marks { all?: Mark, butRegister?: Mark }

const tokenKind = 'revoked-token'
const agentKind = 'revoked-agent'
/** What has ended stays so here, whatever became of its entry. */
const keptForGood = { removed () {}, keys: () => [] }

function covers (mark: Mark | undefined, { incarnation, issuedAt }: Principal): boolean {
  if (!mark) return false
  return incarnation === null ? (issuedAt ?? 0) < mark.at : incarnation <= mark.incarnation
}

function isSame (a: Mark | undefined, b: Mark | undefined): boolean {
  return a?.incarnation === b?.incarnation && a?.at === b?.at
}

/** Adds to what was ended before. */
function withMark (marks: Marks, { incarnation, mayRegister }: AgentRevocation, at: number): Marks {
  const member = mayRegister ? 'butRegister' : 'all'
  return { ...marks, [member]: { incarnation: Math.max(incarnation, marks[member]?.incarnation ?? incarnation), at } }
}

/**
 * What has ended before its time: single tokens, and all tokens of an agent up to an incarnation. Shared by all
 * processes; each answers from its own copy, which never forgets what has ended before no token can tell any more.
 */
export class Revocations {
  readonly #state: KeyValueReplica
  readonly #maxTokenLifeMs: number
  readonly #now: Clock
  readonly #tokens: ExpiringMap<true>
  readonly #agents: ExpiringMap<Marks>
  readonly #listeners = new Set<(revoked: Revoked) => void>()

  constructor ({ state, maxTokenLifeMs, now }: RevocationsOptions) {
    this.#state = state
    this.#maxTokenLifeMs = maxTokenLifeMs
    this.#now = now
    this.#tokens = new ExpiringMap(now)
    this.#agents = new ExpiringMap(now)
    state.attach(tokenKind, { put: ({ key, until }) => this.#hearToken(key, until), ...keptForGood })
    state.attach(agentKind, { put: ({ key, value, until }) => this.#hearAgent(key, JSON.parse(value) as Marks, until), ...keptForGood })
  }

  /** Number of entries that are kept. */
  get size () { return this.#tokens.size + this.#agents.size }

  /** `expiresAt` is in epoch seconds; null for a token that does not say. */
  async revokeToken (jti: string, expiresAt: number | null): Promise<void> {
    const until = expiresAt === null ? this.#now() + this.#maxTokenLifeMs : expiresAt * 1000
    await this.#state.store.put({ kind: tokenKind, key: jti, value: '', until })
  }

  /**
   * Ends every token of the agent with this incarnation, a lower one or none. A later call adds to earlier ones: what
   * was ended altogether stays so, also when it is added to by two processes at once.
   */
  async revokeAgent (revocation: AgentRevocation): Promise<void> {
    const { agentId } = revocation
    const now = this.#now()
    const known = this.#agents.get(agentId)
    let text = known ? JSON.stringify(known) : null
    for (;;) {
      const value = JSON.stringify(withMark(text === null ? {} : JSON.parse(text) as Marks, revocation, now))
      if (await this.#state.store.put({ kind: agentKind, key: agentId, value, until: now + this.#maxTokenLifeMs }, text)) return
      text = await this.#state.store.get(agentKind, agentId) ?? null
    }
  }

  /** Only tokens of agents end with their agent, and those that agents made for peers: an admin or user may bear an id that looks like one. */
  check (principal: Principal): RevocationVerdict {
    if (this.#tokens.get(principal.tokenId)) return 'revoked'
    const isAgent = (principal.role === 'agent' || principal.role === 'peer') && principal.agentId !== null
    const marks = isAgent ? this.#agents.get(principal.agentId) : undefined
    if (covers(marks?.all, principal)) return 'revoked'
    return covers(marks?.butRegister, principal) ? 'register-only' : 'ok'
  }

  /** Drops what no token can outlive; happens by itself as entries are added. */
  sweep () {
    this.#tokens.sweep()
    this.#agents.sweep()
  }

  /** Calls `listener` once with everything that is revoked, in whichever process. Returns a function that stops it. */
  onRevoke (listener: (revoked: Revoked) => void): () => void {
    this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }

  #hearToken (jti: string, until: number) {
    const isNew = !this.#tokens.get(jti)
    this.#tokens.set(jti, true, until)
    if (isNew) this.#emit({ jti })
  }

  #hearAgent (agentId: string, marks: Marks, until: number) {
    const { all, butRegister } = this.#agents.get(agentId) ?? {}
    this.#agents.set(agentId, marks, until)
    if (marks.all && !isSame(marks.all, all)) this.#emit({ agentId, incarnation: marks.all.incarnation, mayRegister: false })
    if (marks.butRegister && !isSame(marks.butRegister, butRegister)) this.#emit({ agentId, incarnation: marks.butRegister.incarnation, mayRegister: true })
  }

  #emit (revoked: Revoked) {
    for (const listener of this.#listeners) listener(revoked)
  }
}
