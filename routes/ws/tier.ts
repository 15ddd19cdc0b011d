import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { WebSocket } from 'ws'
import type { Sockets } from '../../plugins/sockets.js'
import { transportOf } from '../../plugins/transport.js'
import { credentialsOf, takeSubprotocols } from '../../plugins/upgrade.js'
import { adopt } from '../../plugins/websocket-host.js'
import { problem } from '../../src/errors.js'
import type { Core } from '../../src/core.js'
import { closeCodes } from '../../src/sockets/codes.js'
import { Connection } from '../../src/sockets/connection.js'
import type { Tier } from '../../src/sockets/tiers.js'

/** Serves one tier at its path. `begin` says the first word on each connection. */
export function serveTier (scope: FastifyInstance, core: Core, { services }: Sockets, tier: Tier, begin: (connection: Connection, request: FastifyRequest) => void): void {
  const { hub, admission } = services
  let isBounded = true

  async function admit (request: FastifyRequest, reply: FastifyReply) {
    if (!request.ws) throw problem('request-error', 'This is a WebSocket: send an upgrade')
    const refusal = admission.objection('too-many-connections', 'Many sockets are opened at this moment')
    if (refusal) {
      reply.header('connection', 'close')
      throw refusal
    }
    const token = takeSubprotocols(request)
    request.agentRegistryCredentials = tier.handshake ? await credentialsOf(core, tier, request, token) : null
    const isKnown = request.agentRegistryCredentials !== null && 'principal' in request.agentRegistryCredentials
    const objection = hub.objection(tier, request.ip, isKnown)
    if (objection === undefined) return
    reply.header('connection', 'close')
    throw problem(hub.isDraining ? 'shutting-down' : 'too-many-connections', objection, { headers: { 'retry-after': '5' } })
  }

  function open (socket: WebSocket, request: FastifyRequest) {
    const connection = new Connection({ tier, transport: transportOf(socket), address: request.ip, services })
    socket.on('message', (data: Buffer, isBinary: boolean) => { connection.receive(data, isBinary) })
    socket.on('pong', () => { connection.heard(core.now()) })
    socket.on('close', code => { hub.remove(connection, code !== closeCodes.abnormal) })
    if (!adopt(scope, socket) && isBounded) {
      isBounded = false
      core.log.warn({ tier: tier.name }, 'the size of frames of this tier is not bounded by ws')
    }
    hub.add(connection)
    return connection
  }

  scope.get(tier.options.path, { websocket: true, preValidation: admit, schema: { hide: true } }, function onConnection (socket, request) {
    begin(open(socket, request), request)
  })
}
