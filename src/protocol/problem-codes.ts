import { isProblem, type ProblemError, type ProblemType } from '../errors.js'
import { jittered } from '../lib/jitter.js'
import type { ErrorCode } from './codes.js'

const storageRetryMs = 2000

const codes: Partial<Record<ProblemType, ErrorCode>> = {
  'agent-not-found': 'agent_offline',
  'agent-offline': 'agent_offline',
  'channel-limit-exceeded': 'channel_limit_exceeded',
  'channel-not-authorized': 'channel_not_authorized',
  'channel-reserved': 'channel_reserved',
  'deadline-exceeded': 'deadline_exceeded',
  'hook-failed': 'backend_error',
  'insufficient-permissions': 'action_not_permitted',
  'invalid-channel': 'invalid_channel',
  'invalid-input': 'invalid_frame',
  'missing-data': 'missing_data',
  'no-responders': 'no_responders',
  'peer-not-found': 'peer_not_found',
  'quota-exceeded': 'rate_limited',
  'rate-limit-exceeded': 'rate_limited',
  'request-rejected': 'rejected',
  'request-too-large': 'message_too_large',
  'stale-incarnation': 'action_not_permitted',
  'storage-unavailable': 'storage_unavailable',
  'unknown-request': 'unknown_request'
}

function extrasOf ({ type, members }: ProblemError): object {
  if (type === 'storage-unavailable') return { retryAfterMs: Math.round(jittered(storageRetryMs, 0.5)) }
  if (type === 'quota-exceeded' || type === 'rate-limit-exceeded') return { retryAfterMs: Number(members!.retry_after) * 1000 }
  return type === 'request-rejected' ? { reason: members!.reason } : {}
}

/** How an `error` frame says what went wrong; undefined for what nobody is to know. */
export function errorOf (error: unknown): { code: ErrorCode, extras: object } | undefined {
  const code = isProblem(error) ? codes[error.type] : undefined
  return code && { code, extras: extrasOf(error as ProblemError) }
}
