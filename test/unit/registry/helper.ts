import fc from 'fast-check'
import type { ProblemError } from '../../../src/errors.js'
import type { Principal } from '../../../src/protocol/principal.js'
import { parseRegistration, type RegistrationRules } from '../../../src/registry/registration.js'
import type { AgentState } from '../../../src/protocol/schemas/common.js'
import { stateNames } from '../../../src/protocol/schemas/common.js'
import type { AgentRecord, Change } from '../../../src/storage/agent-store.js'
import { registration } from '../../support/harness.js'

export const rules: RegistrationRules = { allowedAgentTypes: ['testing', 'Security'], maxRecordBytes: 131_072 }

export const parse = (more: object = {}, other: Partial<RegistrationRules> = {}) =>
  parseRegistration(registration('agent-one', more), { ...rules, ...other })

/** Paths of the validation errors of an input. */
export function faults (input: unknown, other: Partial<RegistrationRules> = {}): string[] {
  try {
    parseRegistration(input, { ...rules, ...other })
    return []
  } catch (error) {
    const { type, statusCode, members } = error as ProblemError
    if (type !== 'validation-failed' || statusCode !== 422) throw error
    return (members!.errors as Array<{ path: string }>).map(({ path }) => path)
  }
}

export const faultsOf = (more: object, other?: Partial<RegistrationRules>) => faults(registration('agent-one', more), other)

export function principal (more: Partial<Principal> = {}): Principal {
  return {
    type: 'agent',
    role: 'agent',
    subject: 'agent-one',
    agentId: 'agent-one',
    incarnation: 1,
    tokenId: 'token',
    sessionId: null,
    expiresAt: null,
    scopes: [],
    keyDigest: null,
    ...more
  } as Principal
}

export function record (id: string, more: Partial<AgentRecord> = {}): AgentRecord {
  const type = more.type ?? 'testing'
  const capabilities = more.capabilities ?? ['cap one']
  const { body } = parseRegistration(registration(id, { agent_type: type, capabilities }), { ...rules, allowedAgentTypes: ['*'] })
  return {
    id,
    body,
    type,
    capabilities,
    ownerKey: null,
    registeredAt: 1000,
    created: 1,
    incarnation: 1,
    revision: 1,
    state: 'alive',
    lastSeen: 2000,
    held: false,
    metrics: null,
    ...more
  }
}

/** One random operation on a fleet. */
export interface Step {
  kind: 'put' | 'state' | 'remove'
  id: string
  type: string
  capabilities: string[]
  state: AgentState
  hidden: boolean
}

export const steps = fc.array(fc.record<Step>({
  kind: fc.constantFrom('put', 'put', 'state', 'remove'),
  id: fc.constantFrom('agent-a', 'agent-b', 'agent-c', 'agent-d', 'agent-e', 'agent-f'),
  type: fc.constantFrom('testing', 'TESTING', 'security'),
  capabilities: fc.subarray(['one', 'two', 'three'], { minLength: 1 }),
  state: fc.constantFrom(...stateNames),
  hidden: fc.boolean()
}), { maxLength: 60 })

/** Applies random steps as a store does, and keeps the fleet as plain records. */
export class Model {
  readonly agents = new Map<string, AgentRecord>()
  n = 0

  change ({ kind, id, type, capabilities, state, hidden }: Step): Change | null {
    const before = this.agents.get(id) ?? null
    if (kind === 'remove') return before && this.#commit('unregistered', before, null)
    const n = this.n + 1
    if (kind === 'state') return before && this.#commit(state === 'dead' ? 'dead' : 'state', before, { ...before, state, revision: n })
    const made = record(id, { type, capabilities, state, revision: n, created: before?.created ?? n, ...(hidden && { publicBody: null }) })
    return this.#commit(before ? 'updated' : 'registered', before, made)
  }

  #commit (event: Change['event'], before: AgentRecord | null, after: AgentRecord | null): Change {
    const id = (after ?? before)!.id
    if (after) this.agents.set(id, after)
    else this.agents.delete(id)
    return { n: ++this.n, event, id, before, after, reason: 'random' }
  }
}
