import type { FastifyRequest } from 'fastify'
import type { Core } from '../core.js'
import type { UpgradeCredentials } from '../sockets/handshake.js'
import { bearerOf, headerOf } from './guard.js'
import { refusalOf } from './upgrade.js'

/** A parameter of the query that is there once. */
function queryOf ({ query }: FastifyRequest, name: string): string | undefined {
  const value = (query as Record<string, unknown>)[name]
  return typeof value === 'string' ? value : undefined
}

/** Who opens `/v1`: by a token in a header, subprotocol or the query, or by a publishable key there. */
export async function peerCredentialsOf ({ authority, peerKeys }: Core, request: FastifyRequest, subprotocolToken: string | undefined): Promise<NonNullable<UpgradeCredentials>> {
  const token = bearerOf(request) ?? subprotocolToken ?? queryOf(request, 'token')
  try {
    const principal = token
      ? await authority.authenticate(token, { takesPeers: true })
      : peerKeys.bearer(queryOf(request, 'key') ?? '', headerOf(request, 'origin'))
    if (principal === undefined) return { refused: 'invalid' }
    return principal.type === 'temp' ? { refused: 'not-allowed' } : { principal }
  } catch (error) {
    return refusalOf(error)
  }
}
