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
import type { AgentRegistryOptions } from '../agent-registry-options.js'
import { resolveOptions } from '../options.js'
import type { ServerSettings } from './env.js'
import { drainGraceMs } from '../sockets/drain.js'

export interface AppSettings { options: AgentRegistryOptions, server: ServerSettings }

const secretNames = ['authorization', 'token', 'ticket', 'key', 'password', 'secret']
const redacted = secretNames.flatMap(name => [name, `*.${name}`, `*.headers.${name}`])

interface LoggedRequest { method: string, url: string, ip?: string }

/** Logs a request without its query, which may contain tokens, tickets and keys. */
export function serializeRequest (request: LoggedRequest): Record<string, unknown> {
  return { method: request.method, path: request.url.split('?', 1)[0], address: request.ip }
}

/** Writes the log to the standard output and, once the registry exists, to its dashboards. */
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

/** Interval at which Node closes slow connections; its default is 30 seconds. */
const connectionsCheckingInterval = 1000

const clientErrors: Record<string, readonly [status: number, title: string]> = {
  HPE_HEADER_OVERFLOW: [431, 'Request Header Fields Too Large'],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'Request Timeout']
}

/** Responds to input that Node cannot parse as HTTP. There is no request object, so the response is written to the socket. */
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

/** The server speaks plain HTTP, so browsers must not upgrade to HTTPS; swagger-ui needs inline styles. */
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

function serverOptions (settings: AppSettings, { errorHandler }: ProblemHandlers, stream: LogStream): FastifyHttpOptions<Server> {
  const { options, server } = settings
  return {
    logger: loggerOptions(server.logLevel, stream),
    requestIdHeader: false,
    // Requests are answered while connections drain; /health/ready reports the state.
    return503OnClosing: false,
    // Fastify aborts a close that takes longer.
    pluginTimeout: resolveOptions(options).sockets.drainMs + drainGraceMs + 5_000,
    genReqId: () => randomUUID(),
    trustProxy: server.trustProxy,
    requestTimeout: server.requestTimeoutMs,
    http: { headersTimeout: server.headersTimeoutMs, connectionsCheckingInterval },
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 256 },
    // The message of Fastify contains the URL, whose query may hold a secret.
    frameworkErrors: function answerBadUrl (_error, request, reply) {
      errorHandler(problem('request-error', 'The URL is not valid'), request, reply)
    },
    clientErrorHandler: answerClientError
  }
}

/**
 * Builds the stand-alone server: the registry with security headers, problem documents for all errors, and logs without
 * secrets.
 * @throws AGENT_REGISTRY_INVALID_OPTIONS, and other errors of the plugin's registration
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
    // The hook also runs for routes of the registry, which counts these requests itself.
    if (server === app) registry.countUnmatched({ method, statusCode, elapsedMs })
    done()
  })
  return app
}
