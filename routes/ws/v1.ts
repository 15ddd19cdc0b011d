import type { FastifyInstance } from 'fastify'
import { serveTier, type TierServices } from './tier.js'

/** `/v1`: peers that speak the Metered realtime protocol. */
export default async function v1Socket (scope: FastifyInstance, services: TierServices) {
  serveTier(scope, services, services.sockets.tiers.v1, (connection, request) => {
    connection.tier.handshake!.begin(connection, request.agentRegistryCredentials)
  })
}
