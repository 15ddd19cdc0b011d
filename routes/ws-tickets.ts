import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { guard } from '../src/http/guard.js'
import type { Core } from '../src/core.js'
import { answers, TicketAnswer, TicketBody } from '../src/protocol/schemas/rest.js'

/** `POST /ws-tickets`: opens one socket within 30 s, for clients that cannot set a header. */
const ticketRoutes: FastifyPluginAsyncTypebox<{ core: Core }> = async function ticketRoutes (scope, { core: { authority, tickets } }) {
  scope.post('/ws-tickets', {
    schema: { tags: ['tokens'], summary: 'A ticket for one socket', body: TicketBody, response: answers(TicketAnswer) },
    preValidation: [
      guard(authority, { takes: ['agent', 'user', 'admin'], level: 'user' }),
      async function allowNoBody (request) { request.body ??= { tier: 'agents' } }
    ]
  }, async function issueTicket ({ agentRegistryPrincipal, body }) {
    return tickets.issue({ tier: body.tier, principal: agentRegistryPrincipal! })
  })
}

export default ticketRoutes
