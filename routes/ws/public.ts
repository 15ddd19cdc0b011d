import type { FastifyInstance } from 'fastify'
import type { Sockets } from '../../plugins/sockets.js'
import type { Core } from '../../src/core.js'
import { serveTier } from './tier.js'

/** `/public/ws`: anybody, read only. */
export default async function publicSocket (scope: FastifyInstance, { core, sockets }: { core: Core, sockets: Sockets }) {
  serveTier(scope, core, sockets, sockets.tiers.public, connection => connection.sendFrame(welcome(core.registry.revision)))
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
