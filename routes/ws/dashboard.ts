import type { FastifyInstance } from 'fastify'
import { serveTier, type TierServices } from './tier.js'

/** `/dashboard/ws`: admins. */
export default async function dashboardSocket (scope: FastifyInstance, services: TierServices) {
  serveTier(scope, services, services.sockets.tiers.dashboard, (connection, request) => {
    connection.tier.handshake!.begin(connection, request.agentRegistryCredentials)
  })
}
