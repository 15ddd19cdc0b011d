import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { extrasOf, toProblem } from '../../plugins/problems.js'
import type { ProblemError, ProblemType } from '../../src/errors.js'

/** How clients of the Metered REST API know errors; the others are called as they are. */
const known: Partial<Record<ProblemType, string>> = {
  'authentication-failed': 'unauthorized',
  'token-invalid': 'unauthorized',
  'session-invalid': 'unauthorized',
  'insufficient-permissions': 'action_not_permitted',
  'validation-failed': 'invalid_request',
  'invalid-input': 'invalid_request',
  'request-error': 'invalid_request',
  'request-too-large': 'invalid_request',
  'unsupported-media-type': 'invalid_request',
  'missing-data': 'invalid_request'
}

export function codeOf ({ type }: ProblemError): string {
  return known[type] ?? type.replaceAll('-', '_')
}

/** Answers errors as `{error, message}`. @param onForbidden hears of what is answered 403 */
export function createErrorHandler (onForbidden: (error: ProblemError, request: FastifyRequest) => void) {
  return function v1ErrorHandler (error: FastifyError, request: FastifyRequest, reply: FastifyReply) {
    const told = toProblem(error, request)
    if (told.statusCode === 403) onForbidden(told, request)
    // What a client got wrong is 400 here, whatever it is.
    const status = told.type === 'validation-failed' ? 400 : told.statusCode
    const reason = told.type === 'request-rejected' ? { reason: told.members!.reason } : {}
    if (status === 401) reply.header('www-authenticate', 'Bearer')
    return reply.code(status).headers(extrasOf(told).headers ?? {}).send({ error: codeOf(told), message: told.message, ...reason })
  }
}
