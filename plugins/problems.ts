import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { isAway, isProblem, problem, problemTypes, type ProblemError, type ProblemType, retryAfter } from '../src/errors.js'
import { jittered } from '../src/lib/jitter.js'

const storageRetryMs = 2_000

/** A problem document (RFC 9457). */
export interface ProblemDocument {
  type: string
  title: string
  status: number
  detail: string
  instance: string
  timestamp: string
  request_id: string
  [member: string]: unknown
}

export interface ProblemHandlers {
  errorHandler: (error: FastifyError, request: FastifyRequest, reply: FastifyReply) => FastifyReply
  notFoundHandler: (request: FastifyRequest, reply: FastifyReply) => FastifyReply
}

/** Errors of Fastify that are the client's, by code; anything else below 500 is a `request-error`. */
const fastifyErrors: Record<string, [type: ProblemType, detail: string]> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: ['unsupported-media-type', 'Expected application/json'],
  FST_ERR_CTP_INVALID_JSON_BODY: ['validation-failed', 'The body is not valid JSON'],
  FST_ERR_CTP_EMPTY_JSON_BODY: ['validation-failed', 'The body is empty']
}

/** Types of what the host refuses with a status of its own. */
const typesByStatus: Record<number, ProblemType> = {
  401: 'authentication-failed',
  403: 'insufficient-permissions',
  404: 'not-found',
  429: 'rate-limit-exceeded'
}

const pathOf = (url: string) => url.split('?', 1)[0]!

function tooLarge ({ headers, routeOptions }: FastifyRequest): ProblemError {
  const length = headers['content-length']
  const members = { max_size: routeOptions.bodyLimit, ...(length !== undefined && { content_length: Number(length) }) }
  return problem('request-too-large', 'The body is too large', { members })
}

/** What an error that is not a problem yet is told as. Errors of ours are logged whole and told without a detail. */
export function toProblem (error: FastifyError, request: FastifyRequest): ProblemError {
  if (isProblem(error)) return error
  if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE') return tooLarge(request)
  const known = fastifyErrors[error.code]
  if (known) return problem(known[0], known[1], known[0] === 'validation-failed' ? { members: { errors: [{ path: '', message: known[1] }] } } : {})
  const status = error.statusCode ?? 500
  if (status >= 400 && status < 500) return Object.assign(problem(typesByStatus[status] ?? 'request-error', error.message), { statusCode: status })
  request.log.error(error)
  // A host under pressure refuses with 503, and clients and proxies come again.
  return Object.assign(problem('internal-error', 'An unexpected error occurred. Try again later.'), { statusCode: status === 503 ? 503 : 500 })
}

/** A store that is away may not know when it will be back: everybody tries again, not all in one instant. */
export function extrasOf (error: ProblemError): Pick<ProblemError, 'members' | 'headers'> {
  return isAway(error) ? retryAfter(jittered(storageRetryMs, 0.5)) : error
}

/**
 * Handlers that answer every error as a problem document whose type is below `base`.
 * @param onForbidden hears of what is answered 403
 */
export function createProblemHandlers (base: string, onForbidden?: (error: ProblemError, request: FastifyRequest) => void): ProblemHandlers {
  function send (error: ProblemError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
    const { members, headers = {} } = extrasOf(error)
    const document: ProblemDocument = {
      ...members,
      type: `${base}${error.type}`,
      title: problemTypes[error.type][0],
      status: error.statusCode,
      detail: error.message,
      instance: pathOf(request.url),
      timestamp: new Date().toISOString(),
      request_id: request.id
    }
    reply.header('x-request-id', request.id)
    if (error.statusCode === 401) reply.header('www-authenticate', 'Bearer')
    return reply.code(error.statusCode).headers(headers).type('application/problem+json; charset=utf-8').send(JSON.stringify(document))
  }
  return {
    errorHandler: function problemErrorHandler (error, request, reply) {
      const told = toProblem(error, request)
      if (told.statusCode === 403) onForbidden?.(told, request)
      return send(told, request, reply)
    },
    notFoundHandler: function problemNotFoundHandler (request, reply) {
      return send(problem('not-found', 'There is nothing here'), request, reply)
    }
  }
}

/** Handlers for the stand-alone server, whose problem types are served at its own root. */
export const { errorHandler, notFoundHandler } = createProblemHandlers('/problems/')
