import type { FastifyInstance } from 'fastify'
import { serveTier, type TierServices } from './tier.js'

/** `/agents/ws`: agents, users and admins with a token. */
export default async function agentsSocket (scope: FastifyInstance, services: TierServices) {
  serveTier(scope, services, services.sockets.tiers.agents, (connection, request) => {
    connection.tier.handshake!.begin(connection, request.agentRegistryCredentials)
  })
}
