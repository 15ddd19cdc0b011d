import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import fp from 'fastify-plugin'
import { principalOf } from '../plugins/auth.js'
import type { Authority } from '../src/auth/authority.js'
import type { Dashboard } from '../src/dashboard/dashboard.js'
import { headerOf } from '../src/http/requests.js'
import { ConfigAnswer, ConfigBody, ConfigQuery, DashboardConfig } from '../src/protocol/schemas/dashboard.js'
import { answers } from '../src/protocol/schemas/rest.js'

interface DashboardRoutesOptions { authority: Authority, dashboard: Dashboard }

const tags = ['dashboard']

/** `/dashboard/config`: the settings that the dashboards of all admins share. */
const dashboardRoutes: FastifyPluginAsyncTypebox<DashboardRoutesOptions> = async function dashboardRoutes (scope, services) {
  const { authority, dashboard } = services
  const requireAdmin = scope.agentRegistryGuard({ takes: ['admin'], level: 'admin' })

  scope.get('/config', {
    schema: { tags, summary: 'Get the settings of the dashboard', querystring: ConfigQuery, response: answers(DashboardConfig) },
    preValidation: requireAdmin
  }, async function getConfig ({ query }) {
    return dashboard.settings.config(query.tz)
  })

  scope.post('/config', {
    schema: { tags, summary: 'Change settings of the dashboard', body: ConfigBody, response: answers(ConfigAnswer) },
    preValidation: requireAdmin
  }, async function setConfig (request) {
    await authority.pins.require(principalOf(request), headerOf(request, 'x-session-pin'), request.ip)
    return dashboard.settings.update(request.body)
  })
}

export default fp(dashboardRoutes, { name: 'agent-registry-dashboard-routes', encapsulate: true, dependencies: ['agent-registry-auth'] })
