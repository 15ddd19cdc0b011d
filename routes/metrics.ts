import { createHash, timingSafeEqual } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { problem } from '../src/errors.js'
import { bearerOf } from '../src/http/requests.js'
import type { ResolvedOptions } from '../src/options.js'

const tags = ['service']

const digest = (text: string) => createHash('sha256').update(text).digest()

/** `/metrics` for admins, `/metrics/scrape` for Prometheus with the scrape token. */
async function metricsRoutes (scope: FastifyInstance, { options: { metricsScrapeToken: scrapeToken } }: { options: ResolvedOptions }) {
  const metrics = scope.agentRegistryMetrics

  scope.get('/metrics', {
    schema: { tags, summary: 'Get metrics in the Prometheus text format' },
    preValidation: scope.agentRegistryGuard({ takes: ['admin'], level: 'admin' })
  }, async function getMetrics (_request, reply) {
    return reply.type(metrics.contentType).send(await metrics.text())
  })

  scope.get('/metrics/scrape', {
    schema: { tags, summary: 'Get metrics in the Prometheus text format with the scrape token' },
    preValidation: async function checkScrapeToken (request) {
      if (scrapeToken === undefined) throw problem('insufficient-permissions', 'Metrics scraping not enabled')
      const token = bearerOf(request)
      if (token === undefined) throw problem('authentication-failed', 'Scrape token required')
      if (!timingSafeEqual(digest(token), digest(scrapeToken))) throw problem('insufficient-permissions', 'Invalid scrape token')
    }
  }, async function scrape (_request, reply) {
    return reply.type(metrics.contentType).send(await metrics.text())
  })
}

export default fp(metricsRoutes, {
  name: 'agent-registry-metrics-routes',
  encapsulate: true,
  dependencies: ['agent-registry-auth', 'agent-registry-metrics']
})
