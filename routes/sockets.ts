import type { FastifyInstance } from 'fastify'
import { admitUpgrades, encodingOf, type UpgradeServices } from '../src/http/upgrade.js'
import { closeCodes } from '../src/protocol/codes.js'
import type { Sockets } from '../src/sockets/sockets.js'
import type { Tier } from '../src/sockets/tiers.js'
import { transportFor } from '../src/sockets/transport/self-test.js'
import { adopt } from '../src/sockets/transport/ws.js'

interface Log { warn (details: object, message: string): void }

interface SocketRoutesOptions {
  sockets: Sockets
  upgrades: UpgradeServices
  /** The tiers to serve. */
  tiers: readonly Tier[]
  log: Log
  onError: (error: unknown) => void
}

/** The WebSocket endpoints: `/public/ws`, `/agents/ws`, `/dashboard/ws` and `/v1`, at the configured paths. */
export default async function socketRoutes (scope: FastifyInstance, { sockets, upgrades, tiers, log, onError }: SocketRoutesOptions) {
  const Transport = transportFor(scope.websocketServer, log)
  scope.decorateRequest('agentRegistrySlot', null)
  scope.decorateRequest('agentRegistryCredentials', null)

  function serveTier (tier: Tier) {
    let hasWarned = false
    const options = { websocket: true, preValidation: admitUpgrades(tier, upgrades), schema: { hide: true } } as const

    scope.get(tier.options.path, options, function onConnection (socket, request) {
      const { ip: address, agentRegistrySlot: slot, agentRegistryCredentials: credentials } = request
      if (slot === null) return socket.terminate()
      try {
        const encoding = encodingOf(socket.protocol)
        const connection = sockets.open(tier, { transport: new Transport(socket), encoding, address, slot })
        const isBounded = adopt(scope.websocketServer, socket, connection)
        if (!isBounded && !hasWarned) log.warn({ tier: tier.name }, 'ws does not limit the frame size on this tier')
        hasWarned ||= !isBounded
        sockets.hub.add(connection)
        sockets.begin(connection, credentials)
      } catch (error) {
        onError(error)
        slot.slots.release(slot)
        socket.close(closeCodes.internal, 'Internal error')
      }
    })
  }

  for (const tier of tiers) serveTier(tier)
}
