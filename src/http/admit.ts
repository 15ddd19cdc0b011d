import type { Duplex } from 'node:stream'
import type { FastifyReply, FastifyRequest, preValidationAsyncHookHandler } from 'fastify'
import { problem } from '../errors.js'
import type { Core } from '../core.js'
import { originCheck } from '../auth/origins.js'
import type { ConnectionSlot, ConnectionSlots } from '../limits/connection-slots.js'
import type { SocketServices } from '../sockets/services.js'
import type { Tier } from '../sockets/tiers.js'
import { peerCredentialsOf } from './peer-upgrade.js'
import { credentialsOf, takeSubprotocols } from './upgrade.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** The slot of an upgrade, released when its socket closes. */
    agentRegistrySlot: ConnectionSlot | null
  }
}

const held = Symbol('agent-registry slot')
type HoldingSocket = Duplex & { [held]?: ConnectionSlot }

// Shared by all sockets, which saves a closure for each.
function releaseSlot (this: HoldingSocket) {
  const slot = this[held]
  slot?.slots.release(slot)
}

const full = (detail: string) => problem('too-many-connections', detail, { headers: { 'retry-after': '5' } })

/** Acquires a slot that is released when the socket closes, even if the upgrade is refused. */
function acquire (slots: ConnectionSlots, tier: Tier, { ip }: FastifyRequest, { raw }: FastifyReply): ConnectionSlot {
  const socket: HoldingSocket | null = raw.socket
  if (socket === null || socket.closed) throw problem('request-error', 'The client has disconnected')
  const slot = slots.acquire(tier, ip)
  if (slot === undefined) throw full('Too many connections from this address')
  socket[held] = slot
  socket.on('close', releaseSlot)
  return slot
}

/** Decides on upgrades of a tier before they are accepted. The cheap questions come first: whoever is refused by one of them costs nothing else. */
export function admitTo (tier: Tier, core: Core, { slots, hub, admission }: SocketServices): preValidationAsyncHookHandler {
  const isAllowed = originCheck(core.options.sockets.allowedOrigins)

  function assertOrigin ({ headers: { origin } }: FastifyRequest) {
    if (isAllowed !== null && origin !== undefined && !isAllowed(origin)) throw problem('insufficient-permissions', 'Pages of this origin may not open sockets')
  }

  function assertTurn () {
    const refusal = admission.rejection('too-many-connections', 'Connection rate limit reached')
    if (refusal) throw refusal
  }

  function assertRoom (slot: ConnectionSlot, isAuthenticated: boolean) {
    if (hub.isDraining) throw problem('shutting-down', 'Shutting down', { headers: { 'retry-after': '5' } })
    const objection = slots.admit(slot, isAuthenticated)
    if (objection !== undefined) throw full(objection)
  }

  async function bring (request: FastifyRequest, token: string | undefined) {
    if (tier.name === 'v1') return await peerCredentialsOf(core, request, token)
    return tier.handshake ? await credentialsOf(core, tier, request, token) : null
  }

  return async function admit (request, reply) {
    if (!request.ws) throw problem('request-error', 'This is a WebSocket: send an upgrade')
    reply.header('connection', 'close')
    assertOrigin(request)
    const slot = acquire(slots, tier, request, reply)
    assertTurn()
    const token = takeSubprotocols(request)
    const credentials = await bring(request, token)
    assertRoom(slot, credentials !== null && 'principal' in credentials)
    request.agentRegistrySlot = slot
    request.agentRegistryCredentials = credentials
  }
}
