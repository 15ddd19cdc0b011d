import type { AgentInfo } from '../protocol/schemas/agent.js'

/** The searchable text of an agent, one string a field. */
export interface Fields {
  readonly name: string
  readonly context_brief: string
  readonly capabilities: string
  readonly agent_type: string
  readonly features: string
  readonly metadata: string
  readonly ai_context: string
}

/** Metadata has no bound of its own on lists of strings; what is beyond this many characters is not searchable. */
const maxMetadataLength = 20_000

const isString = (value: unknown): value is string => typeof value === 'string'

function metadataText (metadata: AgentInfo['metadata']): string {
  const texts = Object.values(metadata).flatMap((value: unknown) => Array.isArray(value) ? value.filter(isString) : isString(value) ? [value] : [])
  return texts.join(' ').slice(0, maxMetadataLength)
}

export function fieldsOf (agent: Pick<AgentInfo, keyof Fields>): Fields {
  return {
    name: agent.name,
    context_brief: agent.context_brief,
    capabilities: agent.capabilities.join(' '),
    agent_type: agent.agent_type,
    features: agent.features.join(' '),
    metadata: metadataText(agent.metadata),
    ai_context: agent.ai_context ?? ''
  }
}

/** All of it as one text: what is embedded. */
export const textOfFields = (fields: Fields): string =>
  [fields.name, fields.context_brief, fields.capabilities, fields.agent_type, fields.features, fields.metadata, fields.ai_context].filter(Boolean).join(' ')
