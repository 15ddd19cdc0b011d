import { StatusFrame } from '../../protocol/frames/agents.js'
import type { FrameHandler } from '../tiers.js'

/** What an agent wants to be: `draining` and `maintenance` leave discovery at once and keep the lease. */
export const status: FrameHandler = {
  schema: StatusFrame,
  async handle (connection, frame, { registry }) {
    const { type, agentId, incarnation } = connection.principal!
    if (type !== 'agent') return connection.fail('action_not_permitted', 'Only an agent has a status', frame)
    await registry.setState({ id: agentId!, incarnation: incarnation ?? undefined, state: (frame as unknown as StatusFrame).status, reason: 'requested' })
    connection.ack(frame)
  }
}
