import type { FastifyRequest, preValidationAsyncHookHandler } from 'fastify'
import { bearerOf, guard } from '../../src/http/guard.js'
import type { Core } from '../../src/core.js'
import { problem } from '../../src/errors.js'
import type { Sender } from '../../src/messaging/peer.js'
import { peerIdOf, Rights } from '../../src/auth/rights.js'

/** Who asks over HTTP. */
export interface Caller extends Sender {
  /** A back end or an admin, who may do what concerns others. */
  readonly isOperator: boolean
}

declare module 'fastify' {
  interface FastifyRequest {
    agentRegistryCaller: Caller | null
  }
}

/** Lets pass who has a secret key, or the token of an agent or admin. */
export function identifyCaller ({ authority, secretKeys }: Core): preValidationAsyncHookHandler {
  const checkToken = guard(authority, { takes: ['agent', 'admin'], level: 'agent' })

  return async function identify (request, reply) {
    const backEnd = await secretKeys.bearer(bearerOf(request) ?? '', request.ip)
    if (backEnd) request.agentRegistryPrincipal = backEnd
    else await checkToken.call(this, request, reply)
    const bearer = request.agentRegistryPrincipal!
    // No peer can have the name of a key: it is in nobody's way.
    const peerId = backEnd ? `$${backEnd.subject}` : peerIdOf(bearer)
    request.agentRegistryCaller = { peerId, dialect: 'v1', rights: new Rights(bearer), bearer, isOperator: backEnd !== undefined || bearer.type === 'admin' }
  }
}

export const callerOf = ({ agentRegistryCaller }: FastifyRequest) => agentRegistryCaller!

/** Runs a request once if it has an `Idempotency-Key`. @param withinMs how long it may take */
export function once<T> ({ idempotency }: Core, request: FastifyRequest, run: () => Promise<T>, withinMs?: number): Promise<T> {
  return idempotency.onceFor({ request, caller: callerOf(request).peerId, withinMs }, run)
}

/** In whose name a caller says something. @throws insufficient-permissions; name-taken */
export function speakerFor ({ peerTokens }: Core, caller: Caller, from: string | undefined): Sender {
  if (from === undefined || from === caller.peerId) return caller
  if (!caller.isOperator) throw problem('insufficient-permissions', 'Agents speak in their own name')
  peerTokens.assertName(caller, from)
  return { ...caller, peerId: from }
}

/** @throws insufficient-permissions */
export function assertOperator ({ isOperator }: Caller): void {
  if (!isOperator) throw problem('insufficient-permissions', 'This is for back ends and admins')
}
