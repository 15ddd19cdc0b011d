import type { FastifyInstance, HTTPMethods } from 'fastify'
import { problem } from '../errors.js'

const methods: HTTPMethods[] = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']

/**
 * Collects the paths of all routes that `scope` registers from now on.
 * @returns a function to call after the last route: it registers routes that respond to all other methods of these paths
 *   with 405 and `Allow`. OPTIONS is left to the host, for CORS.
 */
export function collectMethods (scope: FastifyInstance): () => void {
  const paths = new Set<string>()

  scope.addHook('onRoute', function collect ({ url }) { paths.add(url) })

  return function refuseOthers () {
    for (const url of [...paths]) {
      // The router also knows routes without an onRoute event: those of `/prefix/`, and those of the host.
      const served = methods.filter(method => scope.hasRoute({ method, url }))
      const allow = served.join(', ')
      async function refuseMethod () {
        throw problem('method-not-allowed', `Allowed methods: ${allow}`, { headers: { allow } })
      }
      scope.route({
        method: methods.filter(method => method !== 'HEAD' && !served.includes(method)),
        url: url.slice(scope.prefix.length),
        // `/prefix` and `/prefix/` are separate paths here.
        prefixTrailingSlash: 'slash',
        schema: { hide: true },
        // Runs in onRequest, so the body is never parsed.
        onRequest: refuseMethod,
        handler: refuseMethod
      })
    }
  }
}
