import type { EventEmitter } from 'node:events'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { WebSocket } from 'ws'
import { admitTo } from '../../src/http/admit.js'
import type { Sockets } from '../../plugins/sockets.js'
import type { TransportClass } from '../../src/sockets/transport/ws.js'
import { encodingOf } from '../../src/http/upgrade.js'
import { adopt } from '../../plugins/websocket-host.js'
import type { Core } from '../../src/core.js'
import { closeCodes } from '../../src/protocol/codes.js'
import { Connection } from '../../src/sockets/connection.js'
import type { Tier } from '../../src/sockets/tiers.js'

export interface TierServices { core: Core, sockets: Sockets, Transport: TransportClass }

const ours = Symbol('agent-registry connection')
type OurSocket = WebSocket & { [ours]: Connection }

// Shared by all sockets: three closures for each of them would be a good part of what it takes.
function onMessage (this: OurSocket, data: Buffer, isBinary: boolean) { this[ours].receive(data, isBinary) }
function onPing (this: OurSocket) { this[ours].pinged() }
function onPong (this: OurSocket, data: Buffer) { this[ours].ponged(data) }
function onClose (this: OurSocket, code: number) { this[ours].gone(code !== closeCodes.abnormal) }

function listen (socket: WebSocket, connection: Connection) {
  const known: OurSocket = Object.assign(socket, { [ours]: connection })
  const emitter: EventEmitter = known
  emitter.on('message', onMessage).on('ping', onPing).on('pong', onPong).on('close', onClose)
}

/** Serves one tier at its path. `begin` says the first word on each connection. */
export function serveTier (scope: FastifyInstance, { core, sockets: { services }, Transport }: TierServices, tier: Tier, begin: (connection: Connection, request: FastifyRequest) => void): void {
  let isBounded = true

  function open (socket: WebSocket, request: FastifyRequest) {
    const connection = new Connection({ tier, transport: new Transport(socket), encoding: encodingOf(socket.protocol), address: request.ip, slot: request.agentRegistrySlot!, services })
    listen(socket, connection)
    if (!adopt(scope, socket) && isBounded) {
      isBounded = false
      core.log.warn({ tier: tier.name }, 'the size of frames of this tier is not bounded by ws')
    }
    services.hub.add(connection)
    return connection
  }

  scope.get(tier.options.path, { websocket: true, preValidation: admitTo(tier, core, services), schema: { hide: true } }, function onConnection (socket, request) {
    try {
      begin(open(socket, request), request)
    } catch (error) {
      services.onError(error)
      services.slots.release(request.agentRegistrySlot!)
      socket.close(closeCodes.internal, 'Internal error')
    }
  })
}
