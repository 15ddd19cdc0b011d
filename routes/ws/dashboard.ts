import type { FastifyInstance } from 'fastify'
import type { Sockets } from '../../plugins/sockets.js'
import type { Core } from '../../src/core.js'
import { serveTier } from './tier.js'

/** `/dashboard/ws`: admins. */
export default async function dashboardSocket (scope: FastifyInstance, { core, sockets }: { core: Core, sockets: Sockets }) {
  serveTier(scope, core, sockets, sockets.tiers.dashboard, (connection, request) => {
    connection.tier.handshake!.begin(connection, request.agentRegistryCredentials)
  })
}
