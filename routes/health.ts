import fastJson, { type AnySchema } from 'fast-json-stringify'
import type { TSchema } from '@sinclair/typebox'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { sendJson } from '../src/http/entity-tags.js'
import { guard } from '../src/http/guard.js'
import { perMillisecondCache } from '../src/registry/query.js'
import type { Core } from '../src/core.js'
import { AzureHealth, ConfigHealth, DetailedHealth, Health, Probe, RedisHealth } from '../src/protocol/schemas/health.js'
import { answers } from '../src/protocol/schemas/rest.js'
import { azureHealth, configHealth, detailedHealth, health, redisHealth } from '../src/http/health-report.js'
import type { Hub } from '../src/sockets/hub.js'

const schema = <T extends object>(summary: string, response: T) => ({ tags: ['service'], summary, response })

/** `/health` for people and existing clients, `/health/live` and `/health/ready` for orchestrators, the rest for admins. */
const healthRoutes: FastifyPluginAsyncTypebox<{ core: Core, hub: Hub }> = async function healthRoutes (scope, { core, hub }) {
  const admin = guard(core.authority, { takes: ['admin'], level: 'admin' })
  const forAdmins = <T extends TSchema>(summary: string, answer: T) => ({ schema: schema(summary, answers(answer)), preValidation: admin })

  const stringify = fastJson(Health as AnySchema)
  const healthText = perMillisecondCache(core.registry.replica, () => stringify(health(core)))

  scope.get('/health', { schema: schema('How the registry is', { 200: Health }) }, async function getHealth (_request, reply) {
    return sendJson(reply, healthText())
  })

  scope.get('/health/live', { schema: schema('Whether the process answers', { 200: Probe }) }, async function getLive () {
    return { status: 'live' }
  })

  scope.get('/health/ready', { schema: schema('Whether to send traffic here', { 200: Probe, 503: Probe }) }, async function getReady (_request, reply) {
    const objection = hub.isDraining ? 'draining' : core.registry.outage ? 'storage-unavailable' : undefined
    return objection === undefined ? { status: 'ready' } : reply.code(503).send({ status: objection })
  })

  scope.get('/health/detailed', forAdmins('How the registry and its parts are', DetailedHealth), async function getDetailed () {
    return detailedHealth(core)
  })

  scope.get('/health/config', forAdmins('Which settings are set', ConfigHealth), async function getConfig () {
    return configHealth(core)
  })

  scope.get('/health/redis', forAdmins('How Redis is', RedisHealth), async function getRedis () {
    return redisHealth(core)
  })

  scope.get('/health/azure', forAdmins('How that is which makes vectors', AzureHealth), async function getAzure () {
    return azureHealth(core)
  })
}

export default healthRoutes
