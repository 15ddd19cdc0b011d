import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { bearerOf, guard, headerOf } from '../src/http/guard.js'
import { isProblem, problem } from '../src/errors.js'
import type { Core } from '../src/core.js'
import { answers, Done, MintBody, RevokeBody, TokenAnswer, TokenVerdict, ValidateQuery } from '../src/protocol/schemas/rest.js'

const tags = ['tokens']

/** `/tokens/*`: made by admins, looked at, renewed and revoked. */
const tokenRoutes: FastifyPluginAsyncTypebox<{ core: Core }> = async function tokenRoutes (scope, { core }) {
  const { authority, tokens, registry } = core
  const admin = guard(authority, { takes: ['admin'], level: 'admin' })

  /** The claims of a token that would be let in now. */
  async function claimsOf (token: string) {
    const claims = tokens.claims(token)
    await authority.check(tokens.verify(token))
    return claims
  }

  scope.post('/mint', {
    schema: { tags, summary: 'A token for a user, an agent or an admin; it ends with the session', body: MintBody, response: answers(TokenAnswer) },
    preValidation: admin
  }, async function mintToken ({ agentRegistryPrincipal, body }) {
    const { token, expiresIn } = await authority.mint(agentRegistryPrincipal!, {
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

  scope.post('/validate', {
    schema: { tags, summary: 'Whether a token is valid', querystring: ValidateQuery, response: answers(TokenVerdict) }
  }, async function validateQueryToken ({ query }) {
    try {
      return { valid: true, payload: { ...await claimsOf(query.token) } }
    } catch (error) {
      if (!isProblem(error)) throw error
      return { valid: false, error: error.message }
    }
  })

  scope.get('/validate', {
    schema: { tags, summary: 'Whether the token of this request is valid', response: answers(TokenVerdict) }
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

  scope.post('/refresh', {
    schema: { tags, summary: 'The same claims with a fresh life', response: answers(TokenAnswer) }
  }, async function refreshToken (request) {
    const token = bearerOf(request)
    if (!token) throw problem('authentication-failed', 'No token provided')
    const issued = await authority.refresh(token)
    return { access_token: issued.token, token_type: 'bearer' as const, expires_in: issued.expiresIn }
  })

  scope.post('/revoke', {
    schema: { tags, summary: 'Ends a token, or all tokens of an agent, and their sockets', body: RevokeBody, response: answers(Done) },
    preValidation: admin
  }, async function revokeToken (request) {
    const { token, agent_id: agentId } = request.body
    const principal = request.agentRegistryPrincipal!
    await authority.pins.require(principal, headerOf(request, 'x-session-pin'), request.ip)
    if ((token === undefined) === (agentId === undefined)) throw problem('invalid-input', 'Give either token or agent_id')
    if (agentId !== undefined) await authority.revokeAgent(principal, agentId, request.ip)
    else await authority.revokeToken(principal, token!, request.ip)
    return { status: 'success' as const, message: 'Revoked' }
  })
}

export default tokenRoutes
