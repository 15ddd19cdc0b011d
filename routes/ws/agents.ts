import type { FastifyInstance } from 'fastify'
import type { Sockets } from '../../plugins/sockets.js'
import type { Core } from '../../src/core.js'
import { serveTier } from './tier.js'

/** `/agents/ws`: agents, users and admins with a token. */
export default async function agentsSocket (scope: FastifyInstance, { core, sockets }: { core: Core, sockets: Sockets }) {
  serveTier(scope, core, sockets, sockets.tiers.agents, (connection, request) => {
    connection.tier.handshake!.begin(connection, request.agentRegistryCredentials)
  })
}
