import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { isStorageUnavailable, isProblem, problem, problemTypes, retryAfter, type ProblemError, type ProblemType } from '../src/errors.js'
import { jittered } from '../src/lib/jitter.js'
import type { ResolvedOptions } from '../src/options.js'

const storageRetryMs = 2_000

/** A problem document (RFC 9457). */
interface ProblemDocument {
  type: string
  title: string
  status: number
  detail: string
  instance: string
  timestamp: string
  request_id: string
  [member: string]: unknown
}

export type ForbiddenListener = (error: ProblemError, request: FastifyRequest) => void

export interface ProblemHandlers {
  errorHandler: (error: FastifyError, request: FastifyRequest, reply: FastifyReply) => FastifyReply
  notFoundHandler: (request: FastifyRequest, reply: FastifyReply) => FastifyReply
}

/** Problems for the errors of Fastify, by error code. Other 4xx errors are mapped by their status, or else to `request-error`. */
const fastifyErrors: Record<string, [type: ProblemType, detail: string]> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: ['unsupported-media-type', 'Expected application/json'],
  FST_ERR_CTP_INVALID_JSON_BODY: ['validation-failed', 'The body is not valid JSON'],
  FST_ERR_CTP_EMPTY_JSON_BODY: ['validation-failed', 'The body is empty']
}

/** The problem types of errors that the host throws, by their status. */
const typesByStatus: Record<number, ProblemType> = {
  401: 'authentication-failed',
  403: 'insufficient-permissions',
  404: 'not-found',
  429: 'rate-limit-exceeded'
}

function tooLarge ({ headers, routeOptions }: FastifyRequest): ProblemError {
  const length = headers['content-length']
  const members = { max_size: routeOptions.bodyLimit, ...(length !== undefined && { content_length: Number(length) }) }
  return problem('request-too-large', 'The body is too large', { members })
}

/** Converts an error to a problem. Server errors are logged in full and returned without details. */
export function toProblem (error: FastifyError, request: FastifyRequest): ProblemError {
  if (isProblem(error)) return error
  if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE') return tooLarge(request)
  const known = fastifyErrors[error.code]
  if (known) {
    const [type, detail] = known
    return problem(type, detail, type === 'validation-failed' ? { members: { errors: [{ path: '', message: detail }] } } : {})
  }
  const status = error.statusCode ?? 500
  if (status >= 400 && status < 500) {
    return Object.assign(problem(typesByStatus[status] ?? 'request-error', error.message), { statusCode: status })
  }
  request.log.error(error)
  // A host under pressure refuses requests with 503, which clients and proxies retry.
  const serverError = problem('internal-error', 'An unexpected error occurred. Try again later.')
  return Object.assign(serverError, { statusCode: status === 503 ? 503 : 500 })
}

/** The headers and members of a problem. While the store is unreachable, `Retry-After` spreads the retries of clients. */
export function extrasOf (error: ProblemError): Pick<ProblemError, 'members' | 'headers'> {
  return isStorageUnavailable(error) ? retryAfter(jittered(storageRetryMs, 0.5)) : error
}

/** The base of the problem type URIs. */
export function problemBaseOf ({ problemBase, prefix }: Pick<ResolvedOptions, 'problemBase' | 'prefix'>): string {
  return problemBase ?? `${prefix}/problems/`
}

/**
 * Creates handlers that respond to errors with problem documents.
 * @param base base of the problem type URIs
 * @param onForbidden is called for errors with status 403
 */
export function createProblemHandlers (base: string, onForbidden?: ForbiddenListener): ProblemHandlers {
  function send (error: ProblemError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
    const { members, headers = {} } = extrasOf(error)
    const [instance = ''] = request.url.split('?', 1)
    const document: ProblemDocument = {
      ...members,
      type: `${base}${error.type}`,
      title: problemTypes[error.type][0],
      status: error.statusCode,
      detail: error.message,
      instance,
      timestamp: new Date().toISOString(),
      request_id: request.id
    }
    reply.header('x-request-id', request.id)
    if (error.statusCode === 401) reply.header('www-authenticate', 'Bearer')
    return reply.code(error.statusCode).headers(headers).type('application/problem+json; charset=utf-8').send(JSON.stringify(document))
  }
  return {
    errorHandler: function problemErrorHandler (error, request, reply) {
      const converted = toProblem(error, request)
      if (converted.statusCode === 403) onForbidden?.(converted, request)
      return send(converted, request, reply)
    },
    notFoundHandler: function problemNotFoundHandler (request, reply) {
      return send(problem('not-found', 'Route not found'), request, reply)
    }
  }
}

interface ProblemsOptions {
  base: string
  onForbidden?: ForbiddenListener
  /** Whether the plugin responds to unknown paths too; otherwise the host does. */
  handlesNotFound: boolean
}

/** Responds to all errors of the scope with problem documents (RFC 9457), and adds `X-Request-Id` to all responses. */
async function problems (scope: FastifyInstance, { base, onForbidden, handlesNotFound }: ProblemsOptions) {
  const { errorHandler, notFoundHandler } = createProblemHandlers(base, onForbidden)
  scope.setErrorHandler(errorHandler)
  if (handlesNotFound) scope.setNotFoundHandler(notFoundHandler)
  scope.addHook('onRequest', function addRequestId (request, reply, done) {
    reply.header('x-request-id', request.id)
    done()
  })
}

export default fp(problems, { name: 'agent-registry-problems', fastify: '5.x' })
