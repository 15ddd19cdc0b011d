import { Type, type Static } from '@sinclair/typebox'
import { Content, Head } from '../../storage/level/codec.js'

/** The form of an export: a line with `Header`, then one line with an `ExportedAgent` for each agent. */
export const format = 'fastify-agent-registry/agents'
export const formatVersion = 1

export const Header = Type.Object({
  format: Type.Literal(format),
  version: Type.Integer({ minimum: 1 }),
  agents: Type.Integer({ minimum: 0, description: 'How many lines follow' })
})
export type Header = Static<typeof Header>

/** Everything that a registry keeps of an agent, except its lease: it has a whole one when it is imported. */
export const ExportedAgent = Type.Composite([Type.Object({ id: Type.String() }), Head, Content])
export type ExportedAgent = Static<typeof ExportedAgent>
