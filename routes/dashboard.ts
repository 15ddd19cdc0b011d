import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { guard, headerOf } from '../src/http/guard.js'
import type { Core } from '../src/core.js'
import { ConfigAnswer, ConfigBody, ConfigQuery, DashboardConfig } from '../src/protocol/schemas/dashboard.js'
import { answers } from '../src/protocol/schemas/rest.js'

const tags = ['dashboard']

/** `/dashboard/config`: settings that the pages of all admins share. */
const dashboardRoutes: FastifyPluginAsyncTypebox<{ core: Core }> = async function dashboardRoutes (scope, { core: { authority, dashboard } }) {
  const admin = guard(authority, { takes: ['admin'], level: 'admin' })

  scope.get('/config', {
    schema: { tags, summary: 'Settings of the dashboard', querystring: ConfigQuery, response: answers(DashboardConfig) },
    preValidation: admin
  }, async function getConfig ({ query }) {
    return dashboard.settings.config(query.tz)
  })

  scope.post('/config', {
    schema: { tags, summary: 'Changes settings of the dashboard', body: ConfigBody, response: answers(ConfigAnswer) },
    preValidation: admin
  }, async function setConfig (request) {
    await authority.pins.require(request.agentRegistryPrincipal!, headerOf(request, 'x-session-pin'), request.ip)
    return dashboard.settings.update(request.body)
  })
}

export default dashboardRoutes
