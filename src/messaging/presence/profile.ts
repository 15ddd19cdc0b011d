import type { Principal } from '../../protocol/principal.js'
import type { AgentRecord } from '../../storage/agent-store.js'

export type Metadata = Readonly<Record<string, unknown>>

/** What only the server says of a peer. */
const ownFacts: ReadonlySet<string> = new Set(['agent_id', 'role', 'agent_type', 'capabilities', 'agentName'])

interface Registered { name: string, agent_type: string, capabilities: string[], metadata: Metadata }

/** What others learn of a peer: what it says of itself, and what the server knows, which wins. */
export function profileOf ({ type, role, agentId, metadata }: Principal, record: AgentRecord | undefined, said: Metadata): Metadata {
  const known = type === 'agent' && record ? JSON.parse(record.body) as Registered : undefined
  const model = known?.metadata.model
  return {
    ...(model !== undefined && { model }),
    ...withoutFacts(metadata ?? {}),
    ...withoutFacts(said),
    role,
    ...(type === 'agent' && { agent_id: agentId }),
    ...(known && { agentName: known.name, agent_type: known.agent_type, capabilities: known.capabilities })
  }
}

function withoutFacts (metadata: Metadata): Metadata {
  return Object.fromEntries(Object.entries(metadata).filter(([key]) => !ownFacts.has(key)))
}
