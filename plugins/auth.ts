import type { FastifyInstance, FastifyRequest, preValidationAsyncHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import type { Authority, CheckOptions } from '../src/auth/authority.js'
import { problem } from '../src/errors.js'
import { bearerOf, headerOf } from '../src/http/requests.js'
import type { Principal, TokenType } from '../src/protocol/principal.js'
import type { Heartbeat } from '../src/storage/agent-store.js'

declare module 'fastify' {
  interface FastifyInstance {
    agentRegistryGuard: GuardFactory
  }
  interface FastifyRequest {
    /** The authenticated client, on routes of the registry that require a token. */
    agentRegistryPrincipal: Principal | null
  }
}

interface GuardOptions extends CheckOptions {
  /** The types of tokens that the endpoint accepts. */
  takes: readonly TokenType[]
  level: 'agent' | 'admin' | 'user'
}

/** Creates the hook that lets a request pass only with a token of the given types. */
type GuardFactory = (options: GuardOptions) => preValidationAsyncHookHandler

/** The client that a guard has authenticated. */
export function principalOf ({ agentRegistryPrincipal: principal }: FastifyRequest): Principal {
  if (principal === null) throw problem('authentication-failed', 'Authentication required')
  return principal
}

/**
 * @returns the authenticated client
 * @throws insufficient-permissions unless it is that agent or an admin
 */
export function assertSelf (request: FastifyRequest, id: string): Principal {
  const principal = principalOf(request)
  const { role, agentId } = principal
  if (role === 'admin' || (role === 'agent' && agentId === id)) return principal
  const members = { agent_id: agentId, target_agent_id: id }
  throw problem('insufficient-permissions', 'Agents can only do this for themselves', { members })
}

/** The heartbeat that a request stands for: of the agent's own instance, or of any instance for an admin. */
export function heartbeatOf (id: string, { type, incarnation }: Principal): Heartbeat {
  return { id, incarnation: type === 'agent' ? incarnation ?? undefined : undefined }
}

/**
 * Decorates the scope with `agentRegistryGuard`. Guards run after the body is parsed and before it is validated, so that
 * a client without permission does not learn the schema of the body.
 */
async function auth (scope: FastifyInstance, { authority }: { authority: Authority }) {
  scope.decorateRequest('agentRegistryPrincipal', null)
  scope.decorate('agentRegistryGuard', function createGuard ({ takes, level, ...check }) {
    return async function checkToken (request) {
      const token = bearerOf(request)
      if (!token) throw problem('authentication-failed', `Authentication required for ${level} endpoint`)
      const fingerprint = headerOf(request, 'x-client-fingerprint') ?? ''
      const principal = await authority.authenticate(token, { ...check, fingerprint })
      request.agentRegistryPrincipal = principal
      if (takes.includes(principal.type)) return
      const role = principal.type === 'temp' ? 'temporary' : principal.role
      throw problem('insufficient-permissions', `Access denied: ${role} role cannot access ${level} endpoint`)
    }
  })
}

export default fp(auth, { name: 'agent-registry-auth', fastify: '5.x' })
