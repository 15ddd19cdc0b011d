import type { FastifyRequest } from 'fastify'
import { isProblem, problem } from '../errors.js'
import type { TokenProblem } from '../auth/tokens.js'
import type { Core } from '../core.js'
import type { UpgradeCredentials } from '../sockets/handshake.js'
import type { Encoding } from '../protocol/encoded-message.js'
import type { Tier } from '../sockets/tiers.js'
import { bearerOf, headerOf } from './guard.js'

declare module 'fastify' {
  interface FastifyRequest {
    agentRegistryCredentials: UpgradeCredentials
  }
}

/** How frames may be written, by the subprotocol that says so. */
export const subprotocols: Readonly<Record<string, Encoding>> = { 'agent-registry.json': 'json', 'agent-registry.msgpack': 'msgpack' }
const bearerPrefix = 'bearer.'

/**
 * Leaves in the request only what may be negotiated, so that no @fastify/websocket, ours or the host's, echoes a token.
 * @returns the token that was offered as a subprotocol
 * @throws request-error for a token without the subprotocol itself
 */
export function takeSubprotocols (request: FastifyRequest): string | undefined {
  const { headers } = request.raw
  const offered = (headers['sec-websocket-protocol'] ?? '').split(',').map(name => name.trim())
  const token = offered.find(name => name.startsWith(bearerPrefix))?.slice(bearerPrefix.length)
  const chosen = offered.find(name => Object.hasOwn(subprotocols, name))
  if (chosen !== undefined) headers['sec-websocket-protocol'] = chosen
  else delete headers['sec-websocket-protocol']
  if (token !== undefined && chosen === undefined) {
    throw problem('request-error', `A token as a subprotocol needs a second one to choose: offer 'agent-registry.json' and '${bearerPrefix}<jwt>'`)
  }
  return token
}

/** What was negotiated; JSON with or without that. */
export function encodingOf (protocol: string): Encoding {
  return subprotocols[protocol] ?? 'json'
}

/** Who opens the socket, by header, subprotocol, ticket or query, in this order. */
export async function credentialsOf (core: Core, tier: Tier, request: FastifyRequest, subprotocolToken: string | undefined): Promise<UpgradeCredentials> {
  const query = request.query as Record<string, string | undefined>
  const token = bearerOf(request) ?? subprotocolToken
  const inQuery = tier.takesQueryToken ? query.token : undefined
  try {
    const principal = token === undefined && query.ticket !== undefined
      ? await fromTicket(core, tier.name, query.ticket)
      : token ?? inQuery ? await core.authority.authenticate((token ?? inQuery)!, { fingerprint: fingerprintOf(core, tier, request) }) : null
    if (principal === null) return null
    return principal === undefined ? { refused: 'invalid' } : principal.type === 'temp' ? { refused: 'not-allowed' } : { principal }
  } catch (error) {
    return refusalOf(error)
  }
}

/** How an upgrade is refused whose credentials are not right; what is our fault is thrown. */
export function refusalOf (error: unknown): NonNullable<UpgradeCredentials> {
  if (!isProblem(error) || error.statusCode >= 500) throw error
  if (error.type === 'insufficient-permissions') return { refused: 'not-allowed' }
  return { refused: (error as TokenProblem).reason === 'expired' ? 'expired' : 'invalid' }
}

/** A dashboard's fingerprint counts on the upgrade as it does in the first frame; a ticket was given for one. */
function fingerprintOf ({ options }: Core, { name }: Tier, request: FastifyRequest): string | undefined {
  if (name !== 'dashboard') return undefined
  return headerOf(request, 'x-client-fingerprint') ?? (options.dashboard.requireFingerprint ? '' : undefined)
}

async function fromTicket ({ tickets, authority }: Core, tier: Tier['name'], ticket: string) {
  const principal = await tickets.take(ticket, tier)
  if (principal) await authority.check(principal)
  return principal
}
