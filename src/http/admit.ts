import type { Duplex } from 'node:stream'
import type { FastifyReply, FastifyRequest, preValidationAsyncHookHandler } from 'fastify'
import { problem } from '../errors.js'
import type { Core } from '../core.js'
import { originCheck } from '../sockets/origins.js'
import type { Place, Places } from '../limits/connection-slots.js'
import type { SocketServices } from '../sockets/services.js'
import type { Tier } from '../sockets/tiers.js'
import { peerCredentialsOf } from './peer-upgrade.js'
import { credentialsOf, takeSubprotocols } from './upgrade.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** What an upgrade takes; given back when its socket is gone. */
    agentRegistryPlace: Place | null
  }
}

const held = Symbol('agent-registry place')
type HoldingSocket = Duplex & { [held]?: Place }

// Shared by all sockets, as the listeners of their messages are.
function giveBack (this: HoldingSocket) { this[held]!.places.leave(this[held]!) }

const full = (detail: string) => problem('too-many-connections', detail, { headers: { 'retry-after': '5' } })

/** A place for an upgrade until its socket is gone, whatever becomes of it. */
function enter (places: Places, tier: Tier, { ip }: FastifyRequest, { raw }: FastifyReply): Place {
  const socket: HoldingSocket | null = raw.socket
  if (socket === null || socket.closed) throw problem('request-error', 'The client has gone')
  const place = places.enter(tier, ip)
  if (place === undefined) throw full('Too many connections from this address')
  socket[held] = place
  socket.on('close', giveBack)
  return place
}

/** Decides on upgrades of a tier before they are accepted. The cheap questions come first: whoever is refused by one of them costs nothing else. */
export function admitTo (tier: Tier, core: Core, { places, hub, admission }: SocketServices): preValidationAsyncHookHandler {
  const isAllowed = originCheck(core.options.sockets.allowedOrigins)

  function assertOrigin ({ headers: { origin } }: FastifyRequest) {
    if (isAllowed !== null && origin !== undefined && !isAllowed(origin)) throw problem('insufficient-permissions', 'Pages of this origin may not open sockets')
  }

  function assertTurn () {
    const refusal = admission.objection('too-many-connections', 'Many sockets are opened at this moment')
    if (refusal) throw refusal
  }

  function assertRoom (place: Place, isKnown: boolean) {
    if (hub.isDraining) throw problem('shutting-down', 'Shutting down', { headers: { 'retry-after': '5' } })
    const objection = places.admit(place, isKnown)
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
    const place = enter(places, tier, request, reply)
    assertTurn()
    const token = takeSubprotocols(request)
    const credentials = await bring(request, token)
    assertRoom(place, credentials !== null && 'principal' in credentials)
    request.agentRegistryPlace = place
    request.agentRegistryCredentials = credentials
  }
}
