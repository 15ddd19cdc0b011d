import { GoodbyeFrame } from '../../protocol/frames/agents.js'
import { closeCodes } from '../../protocol/codes.js'
import type { FrameHandler } from '../tiers.js'

/** Unregisters the agent whose connection this is. */
export const goodbye: FrameHandler = {
  schema: GoodbyeFrame,
  async handle (connection, frame, { membership }) {
    const { type, agentId, incarnation } = connection.principal!
    if (type !== 'agent') return connection.fail('action_not_permitted', 'Only an agent can say goodbye', frame)
    await membership.leave({ id: agentId!, incarnation: incarnation ?? undefined }, () => {
      connection.ack(frame)
      connection.close(closeCodes.normal, 'Goodbye')
    })
  }
}
