import type { FastifyBaseLogger, FastifyRequest } from 'fastify'

/** What is logged is an object; the types of Fastify know only strings. */
type Serializer = (request: FastifyRequest) => string

/** Where pino keeps the serializers of a logger; other loggers have none. */
const serializers = Symbol.for('pino.serializers')

const asLogged = (value: object) => value as unknown as string

function asPlain ({ method, url, host, ip }: FastifyRequest) {
  return asLogged({ method, url, host, remoteAddress: ip })
}

/**
 * Requests as the host logs them, but without the query of the URL: tokens and tickets may stand in it.
 * For `logSerializers` of a scope.
 */
export function withoutQueries (log: FastifyBaseLogger): Record<string, Serializer> {
  const { req: serialize = asPlain } = (log as unknown as Record<symbol, { req?: Serializer } | undefined>)[serializers] ?? {}
  return {
    req: function serializeRequest (request) {
      const path = request.url.split('?', 1)[0]!
      const cut = (value: unknown) => typeof value === 'string' ? value.replaceAll(request.url, path) : value
      const logged: unknown = serialize(request)
      if (typeof logged !== 'object' || logged === null) return cut(logged) as string
      return asLogged(Object.fromEntries(Object.entries(logged).map(([name, value]) => [name, cut(value)])))
    }
  }
}
