import type { FastifyBaseLogger, FastifyInstance, FastifyRequest } from 'fastify'
import type { ResolvedOptions } from '../options.js'

/** The token of an `Authorization: Bearer` header (RFC 6750; the scheme in any case, RFC 9110 §11.1). */
export function bearerOf ({ headers: { authorization } }: FastifyRequest): string | undefined {
  return /^Bearer +(\S+) *$/i.exec(authorization ?? '')?.[1]
}

/** The value of a header; the first value if the header is repeated. */
export function headerOf ({ headers }: FastifyRequest, name: string): string | undefined {
  const value = headers[name]
  return Array.isArray(value) ? value[0] : value
}

/** The URL of the registry, including its prefix. Never derived from the Host header, which the client chooses. */
export function publicUrlOf (scope: FastifyInstance, { publicUrl, prefix }: ResolvedOptions): string {
  return publicUrl?.replace(/\/+$/, '') ?? `${originOf(scope)}${prefix}`
}

/** The origin that the server listens on; before that, the origin of injected requests. */
function originOf (scope: FastifyInstance): string {
  const [address] = scope.addresses()
  if (typeof address !== 'object') return 'http://localhost'
  const host = address.family === 'IPv6' ? `[${address.address}]` : address.address
  return `http://${host}:${address.port}`
}

type Serializer = (request: FastifyRequest) => unknown

/** The property of pino loggers that holds their serializers; other loggers have none. */
const serializers = Symbol.for('pino.serializers')

function asPlain ({ method, url, host, ip }: FastifyRequest) {
  return { method, url, host, remoteAddress: ip }
}

function requestSerializerOf (log: FastifyBaseLogger): Serializer {
  const known: unknown = Reflect.get(log, serializers)
  const serializer: unknown = typeof known === 'object' && known !== null && 'req' in known ? known.req : undefined
  return typeof serializer === 'function' ? request => serializer(request) : asPlain
}

/** Serializes requests as the host does, but without the query of the URL, which may contain tokens and tickets. */
function withoutQueries (log: FastifyBaseLogger) {
  const serialize = requestSerializerOf(log)

  function serializeRequest (request: FastifyRequest): unknown {
    const [path = ''] = request.url.split('?', 1)
    const cut = (value: unknown) => typeof value === 'string' ? value.replaceAll(request.url, path) : value
    const logged = serialize(request)
    if (typeof logged !== 'object' || logged === null) return cut(logged)
    return Object.fromEntries(Object.entries(logged).map(([name, value]) => [name, cut(value)]))
  }

  // Not typed: Fastify declares serializers that return a string, pino accepts any value.
  return Object.assign(Object.create(null), { req: serializeRequest })
}

/**
 * Keeps the queries of URLs out of the log of the requests of `scope`. With pino, the loggers of requests are children
 * of one logger that has the serializer already; passing it to each child would copy all serializers per request.
 */
export function hideQueries (scope: FastifyInstance): void {
  const { childLoggerFactory, log } = scope
  const own = withoutQueries(log)
  const base = serializers in log ? log.child({}, { serializers: own }) : undefined
  scope.setChildLoggerFactory(function childOfBase (logger, bindings, options, raw) {
    if (base && !options.serializers) return childLoggerFactory.call(this, base, bindings, options, raw)
    // The scope of the host has its own serializers.
    const all = Object.assign(Object.create(options.serializers ?? null), own)
    return childLoggerFactory.call(this, logger, bindings, { ...options, serializers: all }, raw)
  })
}
