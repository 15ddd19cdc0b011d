import { Registry } from '../../../src/registry/registry.js'
import { MemoryAgentStore } from '../../../src/storage/memory/agent-store.js'
import type { AgentRegistration } from '../../../src/protocol/schemas/agent.js'
import type { Fields } from '../../../src/search/text-index.js'
import { registration } from '../../support/harness.js'

const empty: Fields = { name: '', context_brief: '', capabilities: '', agent_type: '', features: '', metadata: '', ai_context: '' }

/** A text with the given fields. */
export const fields = (some: Partial<Fields>): Fields => ({ ...empty, ...some })

/** A registry without HTTP. */
export async function openRegistry (
  more: { hiddenFields?: string[], publicView?: (shown: AgentRegistration) => AgentRegistration | null } = {}
) {
  const registry = new Registry({
    store: new MemoryAgentStore({ leaseMs: 60_000, retentionMs: 60_000, preservation: false }),
    leaseMs: 60_000,
    cleanupIntervalMs: 60_000,
    maxAgents: 100_000,
    maxRecordBytes: 131_072,
    allowedAgentTypes: ['*'],
    ringSize: 100,
    hookTimeoutMs: 1_000,
    hiddenFields: [],
    onError: error => { throw error },
    ...more
  })
  await registry.open()
  const add = (id: string, values: object = {}) => registry.register(registry.parse(registration(id, values)), { kind: 'owner' }, null)
  return { registry, add }
}

export interface Deferred { resolve: (answer: number[][]) => void, reject: (error: Error) => void, texts: string[] }

/** A provider that answers when the test allows it. */
export function manualEmbed () {
  const calls: Deferred[] = []
  const embed = (texts: string[]) => new Promise<number[][]>((resolve, reject) => { calls.push({ resolve, reject, texts }) })
  return { calls, embed }
}
