import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { principalOf } from '../plugins/auth.js'
import type { Authority } from '../src/auth/authority.js'
import { problem } from '../src/errors.js'
import { headerOf } from '../src/http/requests.js'
import { answers, Done, LoginAnswer, LoginBody, PinBody, PinStatus, SessionStatus, TempTokenAnswer } from '../src/protocol/schemas/rest.js'

const tags = ['auth']
const fingerprintHeader = 'X-Client-Fingerprint'

/** @throws required-header-missing */
function requireFingerprint (request: FastifyRequest): string {
  const fingerprint = headerOf(request, 'x-client-fingerprint')
  if (fingerprint) return fingerprint
  throw problem('required-header-missing', `The header ${fingerprintHeader} is required`, { members: { header: fingerprintHeader } })
}

/** `/auth/*`: temporary tokens for agent keys, admin sessions and their PINs. */
const authRoutes: FastifyPluginAsyncTypebox<{ authority: Authority }> = async function authRoutes (scope, { authority }) {
  const requireAdmin = scope.agentRegistryGuard({ takes: ['admin'], level: 'admin' })

  scope.post('/agent/request_temp_token', {
    schema: {
      tags,
      summary: 'Issue a temporary token for the registration of one agent',
      body: LoginBody,
      response: answers(TempTokenAnswer)
    }
  }, async function requestTempToken ({ body, ip }) {
    return authority.requestTempToken({
      agentId: body.agent_id ?? undefined,
      agentType: body.agent_type ?? undefined,
      agentKey: body.agent_key ?? undefined,
      address: ip
    })
  })

  async function refuseValidation () {
    throw problem('tpr-disabled', 'Three-phase registration is not enabled')
  }

  // Runs before any check: this response makes ARCP clients register without validation.
  scope.post('/agent/validate_compliance', {
    schema: { tags, summary: 'Always 400: three-phase registration is not enabled' },
    onRequest: refuseValidation
  }, refuseValidation)

  scope.post('/login', {
    schema: { tags, summary: 'Open an admin session', body: LoginBody, response: answers(LoginAnswer) },
    preValidation: async function checkFingerprint (request) { requireFingerprint(request) }
  }, async function login (request) {
    const { username, password, agent_id: agentId, agent_type: agentType } = request.body
    if (username && password) {
      return authority.login({ username, password, address: request.ip, fingerprint: requireFingerprint(request) })
    }
    const reason = agentId && agentType
      ? 'Direct agent login not allowed, request a temporary token'
      : 'Invalid credentials - provide either username and password or agent credentials'
    throw problem('authentication-failed', `Authentication failed: ${reason}`)
  })

  scope.post('/logout', {
    schema: { tags, summary: 'End the session, its tokens and its sockets', response: answers(Done) }, preValidation: requireAdmin
  }, async function logout (request) {
    await authority.logout(principalOf(request), request.ip)
    return { status: 'success' as const, message: 'Logged out and session PIN cleared' }
  })

  scope.post('/set_pin', {
    schema: { tags, summary: 'Set the PIN of the session', body: PinBody, response: answers(Done) }, preValidation: requireAdmin
  }, async function setPin (request) {
    await authority.pins.set(principalOf(request), request.body.pin, request.ip)
    return { status: 'success' as const, message: 'PIN set for session' }
  })

  scope.post('/verify_pin', {
    schema: { tags, summary: 'Verify the PIN of the session', body: PinBody, response: answers(Done) }, preValidation: requireAdmin
  }, async function verifyPin (request) {
    await authority.pins.verify(principalOf(request), request.body.pin, request.ip)
    return { status: 'success' as const, message: 'PIN verified' }
  })

  scope.get('/pin_status', {
    schema: { tags, summary: 'Get whether the session has a PIN', response: answers(PinStatus) }, preValidation: requireAdmin
  }, async function pinStatus (request) {
    return authority.pins.status(principalOf(request))
  })

  scope.get('/session_status', {
    schema: { tags, summary: 'Get the session of this token', response: answers(SessionStatus) }, preValidation: requireAdmin
  }, async function sessionStatus (request) {
    const principal = principalOf(request)
    const { pin_set: pinSet } = await authority.pins.status(principal)
    return {
      valid: true as const,
      user_id: principal.subject,
      role: principal.role,
      agent_id: principal.agentId ?? '',
      expires: principal.expiresAt ?? 0,
      is_admin: true,
      session_exists: true,
      pin_set: pinSet
    }
  })
}

export default fp(authRoutes, { name: 'agent-registry-auth-routes', encapsulate: true, dependencies: ['agent-registry-auth'] })
