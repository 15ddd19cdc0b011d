import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { TSchema } from '@sinclair/typebox'
import fastJson from 'fast-json-stringify'
import fp from 'fastify-plugin'
import { sendJson } from '../src/http/entity-tags.js'
import { azureHealth, configHealth, detailedHealth, health, redisHealth, type HealthServices } from '../src/http/health-report.js'
import { AzureHealth, ConfigHealth, DetailedHealth, Health, Probe, RedisHealth } from '../src/protocol/schemas/health.js'
import { answers } from '../src/protocol/schemas/rest.js'
import { perMillisecondCache } from '../src/registry/query.js'
import type { Hub } from '../src/sockets/hub.js'

interface HealthRoutesOptions extends HealthServices { hub: Hub }

const tags = ['service']

/** `/health` for ARCP clients, `/health/live` and `/health/ready` for orchestrators, all others for admins. */
const healthRoutes: FastifyPluginAsyncTypebox<HealthRoutesOptions> = async function healthRoutes (scope, { hub, ...services }) {
  const { registry } = services
  const requireAdmin = scope.agentRegistryGuard({ takes: ['admin'], level: 'admin' })
  const forAdmins = <T extends TSchema>(summary: string, answer: T) =>
    ({ schema: { tags, summary, response: answers(answer) }, preValidation: requireAdmin })

  const stringify = fastJson({ ...Health })
  const healthText = perMillisecondCache(registry.replica, () => stringify(health(services)))

  function unreadyReason (): string | undefined {
    if (hub.isDraining) return 'draining'
    return registry.outage ? 'storage-unavailable' : undefined
  }

  scope.get('/health', {
    schema: {
      tags,
      summary: 'Get the health of the registry',
      response: { 200: Health }
    }
  }, async function getHealth (_request, reply) {
    return sendJson(reply, healthText())
  })

  scope.get('/health/live', {
    schema: {
      tags,
      summary: 'Check that the process responds',
      response: { 200: Probe }
    }
  }, async function getLive () {
    return { status: 'live' }
  })

  scope.get('/health/ready', {
    schema: { tags, summary: 'Check whether the process accepts traffic', response: { 200: Probe, 503: Probe } }
  }, async function getReady (_request, reply) {
    const reason = unreadyReason()
    return reason === undefined ? { status: 'ready' } : reply.code(503).send({ status: reason })
  })

  scope.get('/health/detailed', forAdmins('Get the health of all components', DetailedHealth), async function getDetailed () {
    return detailedHealth(services)
  })

  scope.get('/health/config', forAdmins('List the settings that differ from their defaults', ConfigHealth), async function getConfig () {
    return configHealth(services)
  })

  scope.get('/health/redis', forAdmins('Get the health of Redis', RedisHealth), async function getRedis () {
    return redisHealth(services)
  })

  scope.get('/health/azure', forAdmins('Get the health of the embedding service', AzureHealth), async function getAzure () {
    return azureHealth(services)
  })
}

export default fp(healthRoutes, { name: 'agent-registry-health-routes', encapsulate: true, dependencies: ['agent-registry-auth'] })
