import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import fp from 'fastify-plugin'
import { principalOf } from '../plugins/auth.js'
import type { Authority } from '../src/auth/authority.js'
import type { Tickets } from '../src/auth/tickets.js'
import type { Tokens } from '../src/auth/tokens.js'
import { isProblem, problem } from '../src/errors.js'
import { bearerOf, headerOf } from '../src/http/requests.js'
import {
  answers, Done, MintBody, RevokeBody, TicketAnswer, TicketBody, TokenAnswer, TokenVerdict, ValidateQuery
} from '../src/protocol/schemas/rest.js'
import type { Registry } from '../src/registry/registry.js'

interface TokenRoutesOptions { authority: Authority, registry: Registry, tickets: Tickets, tokens: Tokens }

const tags = ['tokens']

/** `/tokens/*` and `/ws-tickets`: issue, validate, refresh and revoke tokens. */
const tokenRoutes: FastifyPluginAsyncTypebox<TokenRoutesOptions> = async function tokenRoutes (scope, services) {
  const { authority, registry, tickets, tokens } = services
  const requireAdmin = scope.agentRegistryGuard({ takes: ['admin'], level: 'admin' })

  /** The claims of a token. @throws token-invalid, session-invalid */
  async function claimsOf (token: string) {
    const claims = tokens.claims(token)
    await authority.check(tokens.verify(token))
    return claims
  }

  scope.post('/tokens/mint', {
    schema: {
      tags,
      summary: 'Issue a token for a user, an agent or an admin; it ends with the session',
      body: MintBody,
      response: answers(TokenAnswer)
    },
    preValidation: requireAdmin
  }, async function mintToken (request) {
    const { body } = request
    const { token, expiresIn } = await authority.mint(principalOf(request), {
      subject: body.user_id,
      agentId: body.agent_id,
      role: body.role,
      scopes: body.scopes,
      agentType: body.agent_type?.toLowerCase(),
      grants: body.grants,
      metadata: body.metadata,
      incarnation: body.role === 'agent' ? registry.replica.get(body.agent_id)?.record.incarnation ?? null : null
    })
    return { access_token: token, token_type: 'bearer' as const, expires_in: expiresIn }
  })

  scope.post('/tokens/validate', {
    schema: { tags, summary: 'Validate a token', querystring: ValidateQuery, response: answers(TokenVerdict) }
  }, async function validateQueryToken ({ query }) {
    try {
      return { valid: true, payload: { ...await claimsOf(query.token) } }
    } catch (error) {
      if (!isProblem(error)) throw error
      return { valid: false, error: error.message }
    }
  })

  scope.get('/tokens/validate', {
    schema: { tags, summary: 'Validate the token of this request', response: answers(TokenVerdict) }
  }, async function validateBearer (request) {
    const token = bearerOf(request)
    if (!token) throw problem('authentication-failed', 'No token provided', { members: { valid: false, error: 'No token provided' } })
    try {
      const claims = await claimsOf(token)
      return { valid: true, agent_id: claims.sub, payload: { ...claims } }
    } catch (error) {
      if (isProblem(error)) error.members = { valid: false, error: `Invalid token: ${error.message}` }
      throw error
    }
  })

  scope.post('/tokens/refresh', {
    schema: { tags, summary: 'Issue a token with the same claims and a new lifetime', response: answers(TokenAnswer) }
  }, async function refreshToken (request) {
    const token = bearerOf(request)
    if (!token) throw problem('authentication-failed', 'No token provided')
    const issued = await authority.refresh(token)
    return { access_token: issued.token, token_type: 'bearer' as const, expires_in: issued.expiresIn }
  })

  scope.post('/tokens/revoke', {
    schema: {
      tags,
      summary: 'Revoke a token or all tokens of an agent, and close their sockets',
      body: RevokeBody,
      response: answers(Done)
    },
    preValidation: requireAdmin
  }, async function revokeToken (request) {
    const { token, agent_id: agentId } = request.body
    const principal = principalOf(request)
    await authority.pins.require(principal, headerOf(request, 'x-session-pin'), request.ip)
    if ((token === undefined) === (agentId === undefined)) {
      throw problem('invalid-input', 'Exactly one of `token` and `agent_id` is required')
    }
    if (agentId !== undefined) await authority.revokeAgent(principal, agentId, request.ip)
    if (token !== undefined) await authority.revokeToken(principal, token, request.ip)
    return { status: 'success' as const, message: 'Revoked' }
  })

  scope.post('/ws-tickets', {
    schema: {
      tags,
      summary: 'Issue a ticket that opens one socket within 30 s, for clients that cannot set headers',
      body: TicketBody,
      response: answers(TicketAnswer)
    },
    preValidation: [
      scope.agentRegistryGuard({ takes: ['agent', 'user', 'admin'], level: 'user' }),
      async function defaultBody (request) { request.body ??= { tier: 'agents' } }
    ]
  }, async function issueTicket (request) {
    return tickets.issue({ tier: request.body.tier, principal: principalOf(request) })
  })
}

export default fp(tokenRoutes, { name: 'agent-registry-token-routes', encapsulate: true, dependencies: ['agent-registry-auth'] })
