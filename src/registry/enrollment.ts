import { createHash } from 'node:crypto'
import { problem } from '../errors.js'
import type { KeyRing } from '../auth/keys.js'
import type { Principal } from '../auth/principal.js'
import type { Revocations } from '../auth/revocations.js'
import type { SpentTokens } from '../auth/one-time-tokens.js'
import { tokenInvalid, type Tokens } from '../auth/tokens.js'
import { isObject } from '../lib/json.js'
import type { ParsedRegistration } from './registration.js'
import { revisionText } from './render.js'
import type { Registry } from './registry.js'
import type { RegistrationResponse } from '../protocol/schemas/agent.js'
import type { Claim, Heartbeat } from '../storage/agent-store.js'

export interface MembershipOptions {
  registry: Registry
  tokens: Tokens
  keys: KeyRing
  spent: SpentTokens
  revocations: Revocations
  /** Told when an instance of an agent takes the place of another. */
  onReplaced: (replacement: Replacement) => void
}

/** A newer instance of an agent, and where both registered from. */
export interface Replacement { agentId: string, address: string | undefined, previousAddress: string | undefined }

/** What came of a registration, for whoever repeats it elsewhere. */
type Joined = Pick<RegistrationResponse, 'created' | 'revision' | 'incarnation'>

/** Heartbeats per lease: two may be lost. */
const heartbeatsPerLease = 3
/** Agents that registered in one instant drift apart. */
const heartbeatJitter = 0.1

/** How agents come and go, and what becomes of their tokens. */
export class Membership {
  readonly #options: MembershipOptions
  /** Where each agent registered from. */
  readonly #addresses = new Map<string, string>()
  readonly #onFailure = new Set<(agentType: string | undefined) => void>()

  constructor (options: MembershipOptions) {
    this.#options = options
    options.registry.onDifference(({ id, after }) => { if (!after) this.#addresses.delete(id) })
  }

  /**
   * Registers an agent with the right that a token gives; null is the host itself.
   * @param address where the request came from
   * @throws insufficient-permissions, token-invalid, and what `Registry.register` throws
   */
  async join (parsed: ParsedRegistration, principal: Principal | null, address?: string): Promise<RegistrationResponse> {
    const id = parsed.registration.agent_id
    assertMayJoin(id, principal)
    if (principal?.type !== 'temp') return this.#join(parsed, principal, { kind: 'owner', digest: principal?.keyDigest ?? null }, address)
    const claim = this.#keyClaim(principal)
    const request = createHash('sha256').update(parsed.body).digest('base64')
    return this.#options.spent.once(principal.tokenId, {
      key: request,
      run: () => this.#join(parsed, principal, claim, address),
      note: ({ created, revision, incarnation }): Joined => ({ created, revision, incarnation }),
      recall: note => this.#answer({ id, name: parsed.registration.name, keyDigest: claim.digest, ...note as Joined })
    })
  }

  /** A registration was refused. @param input what was asked for, as far as it could be read */
  failed (input: unknown): void {
    const type = typeOf(input)
    for (const listener of this.#onFailure) listener(type)
  }

  /** Hears of every registration that was refused, with the type of agent that it named. Returns how to stop. */
  onFailure (listener: (agentType: string | undefined) => void): () => void {
    this.#onFailure.add(listener)
    return () => { this.#onFailure.delete(listener) }
  }

  /**
   * An agent goes by itself: it may come back with the same token, and do nothing else with it.
   * @param gone called as soon as it is unregistered, before its tokens end
   */
  async leave (sign: Heartbeat, gone: () => void = () => {}): Promise<void> {
    const { incarnation } = await this.#options.registry.unregister(sign, 'left')
    gone()
    await this.#options.revocations.revokeAgent({ agentId: sign.id, incarnation, mayRegister: true })
  }

  /** Somebody else unregisters an agent, when that key owns it or none is named: its tokens end altogether. */
  async expel (id: string, ownerKey?: string): Promise<void> {
    const { incarnation } = await this.#options.registry.unregister({ id, ...(ownerKey !== undefined && { ownerKey }) }, 'removed')
    await this.#options.revocations.revokeAgent({ agentId: id, incarnation, mayRegister: false })
  }

  /** The holder of the key that owns an agent unregisters it with a temporary token, which that spends. */
  async expelByKey (id: string, principal: Principal): Promise<void> {
    const { digest } = this.#keyClaim(principal)
    const expel = async () => {
      if (this.#options.revocations.check(principal) !== 'ok') throw tokenInvalid('revoked')
      await this.expel(id, digest)
    }
    await this.#options.spent.once(principal.tokenId, { key: `delete ${id}`, run: expel, note: () => null, recall: () => {} })
  }

  #keyClaim ({ keyDigest }: Principal): Extract<Claim, { kind: 'key' }> {
    const key = keyDigest === null ? undefined : this.#options.keys.byDigest(keyDigest)
    if (!key) throw tokenInvalid('revoked')
    return { kind: 'key', digest: key.digest, exclusive: key.exclusive, maxAgents: key.maxAgents }
  }

  async #join (parsed: ParsedRegistration, principal: Principal | null, claim: Claim, address: string | undefined): Promise<RegistrationResponse> {
    const { created, record } = await this.#options.registry.register(parsed, claim, principal)
    if (!created) this.#options.onReplaced({ agentId: record.id, address, previousAddress: this.#addresses.get(record.id) })
    if (address !== undefined) this.#addresses.set(record.id, address)
    const { id, incarnation, ownerKey: keyDigest } = record
    const revision = revisionText(this.#options.registry.replica.epoch, record.revision)
    return this.#answer({ id, name: parsed.registration.name, keyDigest, created, revision, incarnation })
  }

  #answer ({ id, name, keyDigest, ...joined }: Joined & { id: string, name: string, keyDigest: string | null }): RegistrationResponse {
    const { registry, tokens } = this.#options
    return {
      status: 'success',
      message: `Agent '${name}' registered successfully`,
      agent_id: id,
      access_token: tokens.issueAgent({ agentId: id, incarnation: joined.incarnation, keyDigest }).token,
      ...joined,
      lease_ms: registry.leaseMs,
      heartbeat_every_ms: Math.floor(registry.leaseMs / heartbeatsPerLease * (1 - heartbeatJitter * Math.random()))
    }
  }
}

/** The type of agent that a registration names, parsed or not. */
function typeOf (input: unknown): string | undefined {
  const { agent_type: type }: { agent_type?: unknown } = isObject(input) ? isObject(input.registration) ? input.registration : input : {}
  return typeof type === 'string' ? type.trim() : undefined
}

function assertMayJoin (id: string, principal: Principal | null) {
  if (principal === null || principal.role === 'admin') return
  if (principal.role === 'agent' && principal.agentId === id) return
  const members = { agent_id: principal.agentId, request_agent_id: id }
  throw problem('insufficient-permissions', 'Agents can only register themselves', { members })
}
