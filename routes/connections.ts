import { randomUUID } from 'node:crypto'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { assertSelf, guard } from '../src/http/guard.js'
import { addressKey } from '../src/lib/address.js'
import { problem } from '../src/errors.js'
import type { Core } from '../src/core.js'
import { isPublic } from '../src/registry/replica.js'
import type { AgentInfo } from '../src/protocol/schemas/agent.js'
import { answers, IdParams, NotifyAnswer } from '../src/protocol/schemas/rest.js'
import { ConnectionRequest, ConnectionResponse, NotifyRequest } from '../src/protocol/schemas/search.js'

/** Calls to agents on behalf of somebody: a user who wants to be contacted, an agent that wants to be known. */
const connectionRoutes: FastifyPluginAsyncTypebox<{ core: Core }> = async function connectionRoutes (scope, { core: { registry, webhooks, authority } }) {
  /** Sends to a path below an agent's endpoint. @throws endpoint-unreachable also for an answer that is not a success */
  async function deliver (endpoint: string, path: string, body: unknown, caller: string, target: string): Promise<void> {
    const { status } = await webhooks.post(endpoint.replace(/\/+$/, '') + path, body, { caller, target })
    if (status === 404 && path.endsWith('notify')) throw problem('not-found', 'The agent does not take notifications')
    if (status < 200 || status > 299) throw problem('endpoint-unreachable', 'The endpoint of this agent could not be reached')
  }

  scope.post('/public/connect/:id', {
    schema: { tags: ['public'], summary: 'Asks an agent to contact a user', params: IdParams, body: ConnectionRequest, response: answers(ConnectionResponse) }
  }, async function connect ({ params: { id }, body, ip }) {
    const entry = registry.replica.get(id)
    if (!entry || entry.record.publicBody === null) throw problem('agent-not-found', `Agent ${id} not found`)
    if (!isPublic(entry.record)) throw problem('agent-not-available', `Agent ${id} is not available`)
    const agent = JSON.parse(entry.rendering.public()!) as AgentInfo
    const timestamp = new Date().toISOString()
    await deliver(entry.rendering.info().endpoint, '/connection/request', {
      user_id: body.user_id,
      user_endpoint: body.user_endpoint,
      user_display_name: body.display_name || 'Anonymous User',
      connection_type: 'external_app',
      user_info: body.additional_info,
      timestamp,
      request_source: 'arcp_public_api'
    }, addressKey(ip), id)
    const { name, agent_type: type, capabilities, requirements } = agent
    return {
      status: 'connection_requested' as const,
      message: `Connection request sent to ${name}`,
      next_steps: 'Agent will contact you directly with connection details',
      agent_info: { name, agent_type: type, capabilities, requirements },
      request_id: `pub_${randomUUID()}`,
      timestamp
    }
  })

  scope.post('/agents/:id/connection/notify', {
    schema: { tags: ['agents'], summary: 'Tells an agent where another one is', params: IdParams, body: NotifyRequest, response: answers(NotifyAnswer) },
    preValidation: guard(authority, { takes: ['agent', 'admin'], level: 'agent' })
  }, async function notify ({ agentRegistryPrincipal, params: { id }, body }) {
    // Nobody speaks in the name of somebody else.
    assertSelf(agentRegistryPrincipal!, body.agent_id)
    const agent = registry.get(id)
    if (!agent) throw problem('agent-not-found', `Agent ${id} not found`)
    const { agent_id: from, agent_endpoint: at, agent_info: info } = body
    await deliver(agent.endpoint, '/connection/notify', { agent_id: from, agent_endpoint: at, agent_info: info }, agentRegistryPrincipal!.subject, id)
    return { status: 'notified' as const, message: 'Agent notified successfully', agent_endpoint: agent.endpoint, next_step: 'The agent may contact you at the endpoint that you gave' }
  })
}

export default connectionRoutes
