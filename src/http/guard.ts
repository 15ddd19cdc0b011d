import type { FastifyRequest, preValidationAsyncHookHandler } from 'fastify'
import { problem } from '../errors.js'
import type { Authority, CheckOptions } from '../auth/authority.js'
import type { Principal, TokenType } from '../protocol/principal.js'
import type { Heartbeat } from '../storage/agent-store.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** Who asks, on routes of the registry that take a token. */
    agentRegistryPrincipal: Principal | null
  }
}

export interface GuardOptions extends CheckOptions {
  /** Kinds of token that the endpoint takes. */
  takes: readonly TokenType[]
  level: 'agent' | 'admin' | 'user'
}

/** The token of an `Authorization: Bearer` header (RFC 6750; the scheme in any case, RFC 9110 §11.1). */
export function bearerOf ({ headers: { authorization } }: FastifyRequest): string | undefined {
  return /^Bearer +(\S+) *$/i.exec(authorization ?? '')?.[1]
}

/** A repeated header counts as its first value. */
export function headerOf ({ headers }: FastifyRequest, name: string): string | undefined {
  const value = headers[name]
  return Array.isArray(value) ? value[0] : value
}

/**
 * Lets a request pass only with a token of the listed kinds. Runs after the body was parsed and before it is
 * validated, so that whoever may not come learns nothing of what a body must be like.
 */
export function guard (authority: Authority, { takes, level, ...check }: GuardOptions): preValidationAsyncHookHandler {
  return async function checkToken (request) {
    const token = bearerOf(request)
    if (!token) throw problem('authentication-failed', `Authentication required for ${level} endpoint`)
    const fingerprint = headerOf(request, 'x-client-fingerprint') ?? ''
    const principal = await authority.authenticate(token, { ...check, fingerprint })
    request.agentRegistryPrincipal = principal
    if (!takes.includes(principal.type)) {
      throw problem('insufficient-permissions', `Access denied: ${principal.type === 'temp' ? 'temporary' : principal.role} role cannot access ${level} endpoint`)
    }
  }
}

/** @throws insufficient-permissions unless the caller is that agent or an admin */
export function assertSelf ({ role, agentId }: Principal, id: string): void {
  if (role === 'admin' || (role === 'agent' && agentId === id)) return
  throw problem('insufficient-permissions', 'Agents can only do this for themselves', { members: { agent_id: agentId, target_agent_id: id } })
}

/** A sign of life by whoever asks: an agent's counts for its own instance, an admin's for any. */
export const signOf = (id: string, { type, incarnation }: Principal): Heartbeat =>
  ({ id, incarnation: type === 'agent' ? incarnation ?? undefined : undefined })
