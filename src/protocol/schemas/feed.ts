import type { Readable } from 'node:stream'
import { Type } from '@sinclair/typebox'
import { Revision, Status } from './common.js'
import { AgentChange } from '../frames/common.js'
import { Capabilities } from './rest.js'

const since = Type.String({ minLength: 1, maxLength: 64, description: 'The last revision that the client has seen' })
const filter = {
  agent_type: Type.Optional(Type.String({ maxLength: 100, description: 'In any case' })),
  capabilities: Type.Optional(Capabilities),
  status: Type.Optional(Status)
}

export const ChangesQuery = Type.Object({
  since: Type.Optional(since),
  ...filter,
  wait: Type.Number({ minimum: 0, maximum: 30, default: 0, description: 'Seconds to wait for a change, about' }),
  limit: Type.Integer({ minimum: 1, maximum: 500, default: 500, description: 'Changes in one answer' })
})

export const ChangesAnswer = Type.Object({
  changes: Type.Array(AgentChange, { description: 'In order' }),
  revision: Type.String({ ...Revision, description: 'The `since` of the next request' }),
  resync: Type.Optional(Type.Literal(true, { description: 'What came after `since` cannot be told: list the agents anew' }))
})

export const EventsQuery = Type.Object({
  since: Type.Optional(since),
  snapshot: Type.Boolean({ default: false, description: 'All agents first' }),
  ...filter
})

/** Not JSON: a stream that goes on for as long as the client reads it. */
export const EventsAnswer = {
  description: 'Server-Sent Events: `put`, `state`, `remove`, `snapshot`, `resync`, `bookmark`, `going_away`, `end`',
  content: { 'text/event-stream': { schema: Type.Unsafe<Readable>({ type: 'string' }) } }
}
