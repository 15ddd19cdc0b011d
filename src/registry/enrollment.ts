import { createHash } from 'node:crypto'
import { problem } from '../errors.js'
import { Emitter } from '../lib/emitter.js'
import { isObject } from '../lib/json.js'
import type { KeyRing } from '../auth/keys.js'
import { type OneTimeTokens, tokenInvalid, type Tokens } from '../auth/tokens.js'
import type { Principal } from '../protocol/principal.js'
import type { Revocations } from '../auth/revocations.js'
import type { AgentRegistration, RegistrationResponse } from '../protocol/schemas/agent.js'
import type { AgentRecord, Claim, Heartbeat } from '../storage/agent-store.js'
import type { ParsedRegistration } from './registration.js'
import type { Registry } from './registry.js'
import { revisionText } from './render.js'

interface EnrollmentOptions {
  registry: Registry
  tokens: Tokens
  keys: KeyRing
  oneTimeTokens: OneTimeTokens
  revocations: Revocations
}

interface EnrollmentEvents {
  /** A new instance of a registered agent has registered. Addresses are those of the requests. */
  replaced: [instance: { agentId: string, address: string | undefined, previousAddress: string | undefined }]
  /** A registration was refused. `agentType` is the type that it named, if that could be read. */
  failed: [agentType: string | undefined]
}

/** The part of a response that a repeated request repeats. The access token is issued again. */
type RegistrationResult = Pick<RegistrationResponse, 'created' | 'revision' | 'incarnation'>

/** An agent survives the loss of two heartbeats in a row. */
const heartbeatsPerLease = 3
/** Spreads the heartbeats of agents that registered in the same instant. */
const heartbeatJitter = 0.1

/** Registers and unregisters agents on behalf of principals, issues their access tokens and revokes them. */
export class Enrollment extends Emitter<EnrollmentEvents> {
  readonly #options: EnrollmentOptions
  /** The address that registered each agent. */
  readonly #addresses = new Map<string, string>()

  constructor (options: EnrollmentOptions) {
    super()
    this.#options = options
    options.registry.on('difference', ({ id, after }) => { if (!after) this.#addresses.delete(id) })
  }

  /**
   * Registers an agent.
   * @param principal null for the host application
   * @param address of the client
   * @throws insufficient-permissions, token-invalid, and what `Registry.register` throws
   */
  async register (parsed: ParsedRegistration, principal: Principal | null, address?: string): Promise<RegistrationResponse> {
    const { agent_id: id, name } = parsed.registration
    assertMayRegister(id, principal)
    if (principal?.type !== 'temp') {
      return this.#register(parsed, principal, { kind: 'owner', digest: principal?.keyDigest ?? null }, address)
    }
    const claim = this.#keyClaim(principal)
    return this.#options.oneTimeTokens.use(principal.tokenId, {
      key: createHash('sha256').update(parsed.body).digest('base64'),
      run: () => this.#register(parsed, principal, claim, address),
      record: ({ created, revision, incarnation }): RegistrationResult => ({ created, revision, incarnation }),
      replay: result => this.#response({ id, name, keyDigest: claim.digest, ...result })
    })
  }

  /** Reports a refused registration. @param input the body of the request, parsed or not */
  reportFailure (input: unknown): void {
    this.emit('failed', agentTypeOf(input))
  }

  /**
   * Applies a JSON Merge Patch. The result must be allowed for the key that owns the agent.
   * @param ifRevision `n` of the revision that the client knows
   * @throws agent-not-found, precondition-failed, validation-failed, insufficient-permissions
   */
  async patch (id: string, patch: unknown, ifRevision?: number): Promise<AgentRecord> {
    const authorize = ({ ownerKey }: AgentRecord, registration: AgentRegistration) => { this.#assertKeyAllows(ownerKey, registration) }
    return this.#options.registry.patch(id, patch, { ifRevision, authorize })
  }

  /**
   * Unregisters an agent at its own request. Its token remains valid for registering again, and for nothing else.
   * @param onRemoved called after the agent is removed and before its tokens are revoked
   */
  async unregister (heartbeat: Heartbeat, onRemoved?: () => void): Promise<void> {
    const { incarnation } = await this.#options.registry.unregister(heartbeat, 'left')
    onRemoved?.()
    await this.#options.revocations.revokeAgent({ agentId: heartbeat.id, incarnation, mayRegister: true })
  }

  /**
   * Unregisters an agent at the request of another client, and revokes all its tokens.
   * @param ownerKey if given, the key that must own the agent
   */
  async evict (id: string, ownerKey?: string): Promise<void> {
    const { incarnation } = await this.#options.registry.unregister({ id, ...(ownerKey !== undefined && { ownerKey }) }, 'removed')
    await this.#options.revocations.revokeAgent({ agentId: id, incarnation, mayRegister: false })
  }

  /** Evicts an agent with a temporary token of the key that owns it. This uses up the token. */
  async evictByKey (id: string, principal: Principal): Promise<void> {
    const { digest } = this.#keyClaim(principal)
    const evict = async () => {
      if (this.#options.revocations.check(principal) !== 'ok') throw tokenInvalid('revoked')
      await this.evict(id, digest)
    }
    await this.#options.oneTimeTokens.use(principal.tokenId, { key: `delete ${id}`, run: evict, record: () => null, replay: () => {} })
  }

  #keyClaim ({ keyDigest }: Principal): Extract<Claim, { kind: 'key' }> {
    const key = keyDigest === null ? undefined : this.#options.keys.byDigest(keyDigest)
    if (!key) throw tokenInvalid('revoked')
    return { kind: 'key', digest: key.digest, exclusive: key.exclusive, maxAgents: key.maxAgents }
  }

  async #register (
    parsed: ParsedRegistration, principal: Principal | null, claim: Claim, address: string | undefined
  ): Promise<RegistrationResponse> {
    const { registry } = this.#options
    const { agent_id: id, name } = parsed.registration
    if (claim.kind === 'key') this.#assertKeyAllows(claim.digest, parsed.registration)
    else if (principal?.role === 'agent') {
      this.#assertKeyAllows(registry.replica.get(id)?.record.ownerKey ?? principal.keyDigest, parsed.registration)
    }
    const { created, record } = await registry.register(parsed, claim, principal)
    if (!created) this.emit('replaced', { agentId: id, address, previousAddress: this.#addresses.get(id) })
    if (address !== undefined) this.#addresses.set(id, address)
    const { incarnation, ownerKey: keyDigest } = record
    const revision = revisionText(registry.replica.epoch, record.revision)
    return this.#response({ id, name, keyDigest, created, revision, incarnation })
  }

  /** @throws insufficient-permissions if the key does not cover the registration; a key that no longer exists covers all */
  #assertKeyAllows (digest: string | null | undefined, { agent_id: agentId, agent_type: agentType, capabilities }: AgentRegistration) {
    const key = digest ? this.#options.keys.byDigest(digest) : undefined
    const reason = key && this.#options.keys.denialReason(key, { agentId, agentType, capabilities })
    if (reason !== undefined) throw problem('insufficient-permissions', reason)
  }

  #response (
    { id, name, keyDigest, ...result }: RegistrationResult & { id: string, name: string, keyDigest: string | null }
  ): RegistrationResponse {
    const { registry, tokens } = this.#options
    return {
      status: 'success',
      message: `Agent '${name}' registered successfully`,
      agent_id: id,
      access_token: tokens.issueAgent({ agentId: id, incarnation: result.incarnation, keyDigest }).token,
      ...result,
      lease_ms: registry.leaseMs,
      heartbeat_every_ms: Math.floor(registry.leaseMs / heartbeatsPerLease * (1 - heartbeatJitter * Math.random()))
    }
  }
}

/** The type of agent that a registration names. @param input a request body, parsed or not */
function agentTypeOf (input: unknown): string | undefined {
  if (!isObject(input)) return undefined
  const { agent_type: type } = isObject(input.registration) ? input.registration : input
  return typeof type === 'string' ? type.trim() : undefined
}

function assertMayRegister (id: string, principal: Principal | null) {
  if (principal === null || principal.role === 'admin') return
  if (principal.role === 'agent' && principal.agentId === id) return
  const members = { agent_id: principal.agentId, request_agent_id: id }
  throw problem('insufficient-permissions', 'Agents can only register themselves', { members })
}
