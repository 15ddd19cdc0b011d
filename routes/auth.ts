import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { guard, headerOf } from '../src/http/guard.js'
import { problem } from '../src/errors.js'
import type { Core } from '../src/core.js'
import { answers, Done, LoginAnswer, LoginBody, PinBody, PinStatus, SessionStatus, TempTokenAnswer } from '../src/protocol/schemas/rest.js'

const tags = ['auth']
const fingerprintHeader = 'X-Client-Fingerprint'

/** `/auth/*`: keys and passwords in, tokens out; sessions and their PINs. */
const authRoutes: FastifyPluginAsyncTypebox<{ core: Core }> = async function authRoutes (scope, { core: { authority } }) {
  const admin = guard(authority, { takes: ['admin'], level: 'admin' })

  scope.post('/agent/request_temp_token', {
    schema: { tags, summary: 'A token for registering one agent, for an agent key', body: LoginBody, response: answers(TempTokenAnswer) }
  }, async function requestTempToken ({ body, ip }) {
    return authority.requestTempToken({
      agentId: body.agent_id ?? undefined,
      agentType: body.agent_type ?? undefined,
      agentKey: body.agent_key ?? undefined,
      address: ip
    })
  })

  async function refuseCompliance () {
    throw problem('tpr-disabled', 'Three-phase registration is not enabled')
  }

  // Before anything is looked at: this very answer tells existing clients to register without validation.
  scope.post('/agent/validate_compliance', {
    schema: { tags, summary: 'Always 400: three-phase registration is not enabled' },
    onRequest: refuseCompliance
  }, refuseCompliance)

  scope.post('/login', {
    schema: { tags, summary: 'Opens an admin session', body: LoginBody, response: answers(LoginAnswer) },
    preValidation: async function requireFingerprint (request) {
      if (headerOf(request, 'x-client-fingerprint')) return
      throw problem('required-header-missing', `The header ${fingerprintHeader} is required`, { members: { header: fingerprintHeader } })
    }
  }, async function login (request) {
    const { username, password, agent_id: agentId, agent_type: agentType } = request.body
    if (username && password) {
      return authority.login({ username, password, address: request.ip, fingerprint: headerOf(request, 'x-client-fingerprint')! })
    }
    if (agentId && agentType) throw problem('authentication-failed', 'Authentication failed: Direct agent login not allowed, request a temporary token')
    throw problem('authentication-failed', 'Authentication failed: Invalid credentials - provide either username and password or agent credentials')
  })

  scope.post('/logout', {
    schema: { tags, summary: 'Ends the session, its tokens and its sockets', response: answers(Done) }, preValidation: admin
  }, async function logout ({ agentRegistryPrincipal, ip }) {
    await authority.logout(agentRegistryPrincipal!, ip)
    return { status: 'success' as const, message: 'Logged out and session PIN cleared' }
  })

  scope.post('/set_pin', {
    schema: { tags, summary: 'Gives the session a PIN', body: PinBody, response: answers(Done) }, preValidation: admin
  }, async function setPin ({ agentRegistryPrincipal, body, ip }) {
    await authority.pins.set(agentRegistryPrincipal!, body.pin, ip)
    return { status: 'success' as const, message: 'PIN set for session' }
  })

  scope.post('/verify_pin', {
    schema: { tags, summary: 'Checks the PIN of the session', body: PinBody, response: answers(Done) }, preValidation: admin
  }, async function verifyPin ({ agentRegistryPrincipal, body, ip }) {
    await authority.pins.verify(agentRegistryPrincipal!, body.pin, ip)
    return { status: 'success' as const, message: 'PIN verified' }
  })

  scope.get('/pin_status', {
    schema: { tags, summary: 'Whether the session has a PIN', response: answers(PinStatus) }, preValidation: admin
  }, async function pinStatus ({ agentRegistryPrincipal }) {
    return authority.pins.status(agentRegistryPrincipal!)
  })

  scope.get('/session_status', {
    schema: { tags, summary: 'The session of this token', response: answers(SessionStatus) }, preValidation: admin
  }, async function sessionStatus ({ agentRegistryPrincipal }) {
    const { subject, role, agentId, expiresAt } = agentRegistryPrincipal!
    const { pin_set: pinSet } = await authority.pins.status(agentRegistryPrincipal!)
    return { valid: true as const, user_id: subject, role, agent_id: agentId ?? '', expires: expiresAt ?? 0, is_admin: true, session_exists: true, pin_set: pinSet }
  })
}

export default authRoutes
