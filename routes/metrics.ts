import { createHash, timingSafeEqual } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import { bearerOf, guard } from '../src/http/guard.js'
import type { Metrics } from '../plugins/metrics.js'
import { problem } from '../src/errors.js'
import type { Core } from '../src/core.js'

const digest = (text: string) => createHash('sha256').update(text).digest()

/** `/metrics` for admins, `/metrics/scrape` for Prometheus with a token of its own. */
export default async function metricsRoutes (scope: FastifyInstance, { core, metrics }: { core: Core, metrics: Metrics }) {
  const { options: { metricsScrapeToken: scrapeToken }, authority } = core
  const schema = (summary: string) => ({ tags: ['service'], summary })

  scope.get('/metrics', {
    schema: schema('Prometheus series'), preValidation: guard(authority, { takes: ['admin'], level: 'admin' })
  }, async function getMetrics (_request, reply) {
    return reply.type(metrics.contentType).send(await metrics.text())
  })

  scope.get('/metrics/scrape', {
    schema: schema('Prometheus series, for the scrape token'),
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
