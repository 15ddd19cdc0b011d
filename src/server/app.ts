import { randomUUID } from 'node:crypto'
import type { Server } from 'node:http'
import type { Socket } from 'node:net'
import helmet from '@fastify/helmet'
import fastify, { type FastifyHttpOptions, type FastifyInstance } from 'fastify'
import { createProblemHandlers, type ProblemHandlers } from '../../plugins/problems.js'
import { problem } from '../errors.js'
import agentRegistry from '../plugin.js'
import type { LogSink } from '../dashboard/logs.js'
import type { AgentRegistry } from '../api.js'
import { resolveOptions, type AgentRegistryOptions } from '../options.js'
import type { ServerSettings } from './server-settings.js'
import { drainGraceMs } from '../sockets/drain.js'

export interface AppSettings { options: AgentRegistryOptions, server: ServerSettings }

const secretNames = ['authorization', 'token', 'ticket', 'key', 'password', 'secret']
const redacted = secretNames.flatMap(name => [name, `*.${name}`, `*.headers.${name}`])

interface LoggedRequest { method: string, url: string, ip?: string }

/** A request as it is logged: without its query, in which tokens, tickets and keys may stand. */
export function serializeRequest (request: LoggedRequest): Record<string, unknown> {
  return { method: request.method, path: request.url.split('?', 1)[0], address: request.ip }
}

/** Where the log goes: to the standard output and, once there is a registry, to its dashboards. */
class LogStream {
  sink: LogSink | undefined

  write (line: string): void {
    process.stdout.write(line)
    this.sink?.write(line)
  }
}

function loggerOptions (level: string, stream: LogStream) {
  return { level, stream, redact: { paths: redacted, censor: '[redacted]' }, serializers: { req: serializeRequest } }
}

/** Node looks for clients that are too slow only every half a minute. */
const connectionsCheckingInterval = 1000

const clientErrors: Record<string, readonly [status: number, title: string]> = {
  HPE_HEADER_OVERFLOW: [431, 'Request Header Fields Too Large'],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'Request Timeout']
}

/** Answers what Node could not parse as HTTP: no request exists yet, so the answer is written by hand (RFC 9457). */
function answerClientError (error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const [status, title] = clientErrors[error.code ?? ''] ?? [400, 'Bad Request']
  const body = JSON.stringify({ type: 'about:blank', title, status, detail: 'The request is not valid HTTP' })
  const head = `HTTP/1.1 ${status} ${title}\r\nContent-Type: application/problem+json\r\n`
  socket.end(`${head}Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`)
}

/** Plain HTTP is served, so nothing is upgraded to HTTPS for the browser; inline styles are swagger-ui's. */
const helmetOptions = {
  contentSecurityPolicy: {
    directives: {
      defaultSrc: ["'self'"],
      connectSrc: ["'self'", 'ws:', 'wss:'],
      imgSrc: ["'self'", 'data:'],
      styleSrc: ["'self'", "'unsafe-inline'"],
      frameAncestors: ["'none'"],
      upgradeInsecureRequests: null
    }
  },
  strictTransportSecurity: false,
  xFrameOptions: { action: 'deny' as const }
}

function problemHandlers (options: AgentRegistryOptions): ProblemHandlers {
  const { problemBase, prefix } = resolveOptions(options)
  return createProblemHandlers(problemBase ?? `${prefix}/problems/`)
}

function serverOptions ({ options, server }: AppSettings, { errorHandler }: ProblemHandlers, stream: LogStream): FastifyHttpOptions<Server> {
  return {
    logger: loggerOptions(server.logLevel, stream),
    requestIdHeader: false,
    // While connections drain, requests are still answered, and readiness says what is going on.
    return503OnClosing: false,
    // Fastify gives up a close that takes longer.
    pluginTimeout: resolveOptions(options).sockets.drainMs + drainGraceMs + 5_000,
    genReqId: () => randomUUID(),
    trustProxy: server.trustProxy,
    requestTimeout: server.requestTimeoutMs,
    http: { headersTimeout: server.headersTimeoutMs, connectionsCheckingInterval },
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 256 },
    // Fastify's own message repeats the URL, and with it what may be a secret in its query.
    frameworkErrors: function answerBadUrl (_error, request, reply) {
      errorHandler(problem('request-error', 'The URL is not valid'), request, reply)
    },
    clientErrorHandler: answerClientError
  }
}

/**
 * The stand-alone server, ready to listen: the registry with security headers, problem documents for every error and
 * logs without secrets.
 * @throws AGENT_REGISTRY_INVALID_OPTIONS and whatever else ends the registration of the plugin
 */
export async function buildApp (settings: AppSettings): Promise<FastifyInstance> {
  const handlers = problemHandlers(settings.options)
  const stream = new LogStream()
  const app = fastify(serverOptions(settings, handlers, stream))
  app.setErrorHandler(handlers.errorHandler)
  app.setNotFoundHandler(handlers.notFoundHandler)
  await app.register(helmet, helmetOptions)
  await app.register(agentRegistry, settings.options)
  const registry = app.getDecorator<AgentRegistry>(resolveOptions(settings.options).decorateAs)
  stream.sink = registry.logSink
  app.addHook('onResponse', function countUnmatched ({ server, method }, { statusCode, elapsedTime: elapsedMs }, done) {
    // Hooks reach the registry's own scope too, which counts for itself; here there is nothing but what is not found.
    if (server === app) registry.countUnmatched({ method, statusCode, elapsedMs })
    done()
  })
  return app
}
