import type { Duplex } from 'node:stream'
import type { FastifyReply, FastifyRequest, preValidationAsyncHookHandler } from 'fastify'
import type { Authority } from '../auth/authority.js'
import { originCheck } from '../auth/origins.js'
import type { PeerKeys } from '../auth/peers.js'
import type { Principal } from '../protocol/principal.js'
import type { Tickets } from '../auth/tickets.js'
import { isProblem, problem } from '../errors.js'
import type { Admission } from '../limits/admission.js'
import type { ConnectionSlot, ConnectionSlots } from '../limits/connection-slots.js'
import type { ResolvedOptions } from '../options.js'
import type { Encoding } from '../protocol/encoded-message.js'
import type { UpgradeCredentials } from '../sockets/handshake.js'
import type { Hub } from '../sockets/hub.js'
import type { Tier } from '../sockets/tiers.js'
import { bearerOf, headerOf } from './requests.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** The slot of an upgrade, released when its socket closes. */
    agentRegistrySlot: ConnectionSlot | null
    agentRegistryCredentials: UpgradeCredentials
  }
}

/** The services that decide on upgrades. */
export interface UpgradeServices {
  options: ResolvedOptions
  authority: Authority
  tickets: Tickets
  peerKeys: PeerKeys
  slots: ConnectionSlots
  hub: Hub
  admission: Admission
}

const retryAfter = { headers: { 'retry-after': '5' } }
const full = (detail: string) => problem('too-many-connections', detail, retryAfter)

/**
 * Creates the hook that admits or refuses the upgrades of a tier before they are accepted. Cheap checks come first, so
 * that a refused upgrade costs little.
 */
export function admitUpgrades (tier: Tier, services: UpgradeServices): preValidationAsyncHookHandler {
  const { options, slots, hub, admission } = services
  const isAllowed = originCheck(options.sockets.allowedOrigins)

  function assertOrigin ({ headers: { origin } }: FastifyRequest) {
    if (isAllowed === null || origin === undefined || isAllowed(origin)) return
    throw problem('insufficient-permissions', 'Origin not allowed')
  }

  function assertRate () {
    const refusal = admission.rejection('too-many-connections', 'Connection rate limit reached')
    if (refusal) throw refusal
  }

  function assertRoom (slot: ConnectionSlot, isAuthenticated: boolean) {
    if (hub.isDraining) throw problem('shutting-down', 'Shutting down', retryAfter)
    const objection = slots.admit(slot, isAuthenticated)
    if (objection !== undefined) throw full(objection)
  }

  return async function admitUpgrade (request, reply) {
    if (!request.ws) throw problem('request-error', 'This path requires a WebSocket upgrade')
    reply.header('connection', 'close')
    assertOrigin(request)
    const slot = acquireSlot(slots, tier, request, reply)
    assertRate()
    const token = takeSubprotocols(request)
    const credentials = await credentialsOf(tier, services, request, token)
    assertRoom(slot, credentials !== null && 'principal' in credentials)
    request.agentRegistrySlot = slot
    request.agentRegistryCredentials = credentials
  }
}

const held = Symbol('agent-registry slot')
type HoldingSocket = Duplex & { [held]?: ConnectionSlot }

// Shared by all sockets, which saves a closure for each.
function releaseSlot (this: HoldingSocket) {
  const slot = this[held]
  slot?.slots.release(slot)
}

/** Acquires a slot that is released when the socket closes, even if the upgrade is refused. */
function acquireSlot (slots: ConnectionSlots, tier: Tier, { ip }: FastifyRequest, { raw }: FastifyReply): ConnectionSlot {
  const socket: HoldingSocket | null = raw.socket
  if (socket === null || socket.closed) throw problem('request-error', 'The client has disconnected')
  const slot = slots.acquire(tier, ip)
  if (slot === undefined) throw full('Too many connections from this address')
  socket[held] = slot
  socket.on('close', releaseSlot)
  return slot
}

/** The encodings of frames by subprotocol. */
export const subprotocols: Readonly<Record<string, Encoding>> = { 'agent-registry.json': 'json', 'agent-registry.msgpack': 'msgpack' }
const bearerPrefix = 'bearer.'

/**
 * Leaves only the subprotocol to negotiate in the request, so that @fastify/websocket, ours or the host's, never echoes a token.
 * @returns the token that was offered as a subprotocol
 * @throws request-error for a token without another subprotocol
 */
function takeSubprotocols (request: FastifyRequest): string | undefined {
  const { headers } = request.raw
  const offered = (headers['sec-websocket-protocol'] ?? '').split(',').map(name => name.trim())
  const token = offered.find(name => name.startsWith(bearerPrefix))?.slice(bearerPrefix.length)
  const chosen = offered.find(name => Object.hasOwn(subprotocols, name))
  if (chosen !== undefined) headers['sec-websocket-protocol'] = chosen
  else delete headers['sec-websocket-protocol']
  if (token !== undefined && chosen === undefined) {
    const expected = `offer 'agent-registry.json' and '${bearerPrefix}<jwt>'`
    throw problem('request-error', `A token as a subprotocol requires a second subprotocol to select: ${expected}`)
  }
  return token
}

/** The encoding of a negotiated subprotocol; JSON without one. */
export function encodingOf (protocol: string): Encoding {
  return subprotocols[protocol] ?? 'json'
}

/** @returns null for no credentials */
async function credentialsOf (tier: Tier, services: UpgradeServices, request: FastifyRequest, token?: string): Promise<UpgradeCredentials> {
  if (!tier.requiresAuthentication) return null
  try {
    const find = tier.name === 'v1' ? findPeer(services, request, token) : findPrincipal(tier, services, request, token)
    const principal = await find
    if (principal === null) return null
    if (principal === undefined) return { refused: 'invalid' }
    return principal.type === 'temp' ? { refused: 'not-allowed' } : { principal }
  } catch (error) {
    return refusalOf(error)
  }
}

type FoundPrincipal = Promise<Principal | null | undefined>

/** The principal of a header, subprotocol, ticket or query, in this order; null for no credentials, undefined for invalid ones. */
async function findPrincipal (tier: Tier, services: UpgradeServices, request: FastifyRequest, subprotocol?: string): FoundPrincipal {
  const token = bearerOf(request) ?? subprotocol
  const ticket = queryOf(request, 'ticket')
  if (token === undefined && ticket !== undefined) return await redeemTicket(tier, services, ticket)
  const given = token ?? (tier.acceptsQueryToken ? queryOf(request, 'token') : undefined)
  if (!given) return null
  return await services.authority.authenticate(given, { fingerprint: fingerprintOf(tier, services, request) })
}

async function redeemTicket ({ name }: Tier, { tickets, authority }: UpgradeServices, ticket: string): Promise<Principal | undefined> {
  const principal = await tickets.take(ticket, name)
  if (principal) await authority.check(principal)
  return principal
}

/** The fingerprint of a dashboard, as in its first frame. A ticket was issued for a checked fingerprint. */
function fingerprintOf ({ name }: Tier, { options }: UpgradeServices, request: FastifyRequest): string | undefined {
  if (name !== 'dashboard') return undefined
  return headerOf(request, 'x-client-fingerprint') ?? (options.dashboard.requireFingerprint ? '' : undefined)
}

/** The principal of `/v1`: of a token in a header, subprotocol or the query, or of a publishable key in the query. */
async function findPeer ({ authority, peerKeys }: UpgradeServices, request: FastifyRequest, subprotocol?: string): FoundPrincipal {
  const token = bearerOf(request) ?? subprotocol ?? queryOf(request, 'token')
  if (token) return await authority.authenticate(token, { takesPeers: true })
  return peerKeys.principalOf(queryOf(request, 'key') ?? '', headerOf(request, 'origin'))
}

/** A query parameter; a repeated one is joined, which is never a valid credential. */
function queryOf ({ query }: FastifyRequest, name: string): string | undefined {
  const value: unknown = Object(query)[name]
  return value === undefined ? undefined : String(value)
}

/** How credentials are refused. @throws an error that is not the client's fault */
function refusalOf (error: unknown): NonNullable<UpgradeCredentials> {
  if (!isProblem(error) || error.statusCode >= 500) throw error
  if (error.type === 'insufficient-permissions') return { refused: 'not-allowed' }
  return { refused: 'reason' in error && error.reason === 'expired' ? 'expired' : 'invalid' }
}
