import type { FastifyInstance } from 'fastify'
import { serveTier, type TierServices } from './tier.js'

/** `/public/ws`: anybody, read only. */
export default async function publicSocket (scope: FastifyInstance, services: TierServices) {
  serveTier(scope, services, services.sockets.tiers.public, connection => connection.sendFrame(welcome(services.core.registry.revision)))
}

function welcome (revision: string) {
  return {
    type: 'welcome',
    message: 'Connected to ARCP Public API WebSocket',
    features: ['agent_updates', 'public_stats', 'discovery_events', 'paginated_discovery'],
    commands: { ping: 'Send ping to check connection', get_discovery: 'Get agent discovery data with pagination' },
    pagination: {
      default_page_size: 30,
      max_page_size: 100,
      usage: "Send {type: 'get_discovery', page: 1, page_size: 30, agent_type: 'optional'}"
    },
    revision
  }
}
