import type { FastifyInstance, HTTPMethods } from 'fastify'
import { problem } from '../errors.js'

const methods: HTTPMethods[] = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']

/**
 * Notes every path that is added to `scope` from now on. The function that is returned answers the methods that are
 * not served there with 405 and `Allow`; call it after the last route. OPTIONS stays free: it is the host's, for CORS.
 */
export function collectMethods (scope: FastifyInstance): () => void {
  const paths = new Set<string>()

  scope.addHook('onRoute', function collect ({ url }) { paths.add(url) })

  return function refuseOthers () {
    for (const url of [...paths]) {
      // Asked of the router, which also has routes that were not announced: those of `/prefix/`, and the host's.
      const served = methods.filter(method => scope.hasRoute({ method, url }))
      const allow = served.join(', ')
      async function refuseMethod () {
        throw problem('method-not-allowed', `Allowed here: ${allow}`, { headers: { allow } })
      }
      scope.route({
        method: methods.filter(method => method !== 'HEAD' && !served.includes(method)),
        url: url.slice(scope.prefix.length),
        // `/prefix` and `/prefix/` are two entries here.
        prefixTrailingSlash: 'slash',
        schema: { hide: true },
        // Before a body is read: it does not matter what is in it.
        onRequest: refuseMethod,
        handler: refuseMethod
      })
    }
  }
}
