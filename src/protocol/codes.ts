import { isProblem, type ProblemError, type ProblemType } from '../errors.js'
import { jittered } from '../lib/jitter.js'

/** Codes of `error` frames. The connection stays open after each of them. */
export const errorCodes = [
  'malformed_message', 'unknown_type', 'invalid_frame', 'missing_data', 'unsupported_encoding', 'message_too_large',
  'rate_limited', 'action_not_permitted', 'channel_not_authorized', 'channel_reserved', 'invalid_channel', 'channel_limit_exceeded',
  'invalid_peer_id', 'peer_not_found', 'agent_offline', 'no_responders', 'deadline_exceeded', 'rejected',
  'unknown_request', 'backend_error', 'storage_unavailable', 'internal_error'
] as const
export type ErrorCode = typeof errorCodes[number]

/** Close codes: below 4000 those of RFC 6455 §7.4.1, from 4000 those of this protocol. */
export const closeCodes = {
  normal: 1000,
  goingAway: 1001,
  /** Never sent: reported by a client that received no close frame. */
  abnormal: 1006,
  policyViolation: 1008,
  tooBig: 1009,
  internal: 1011,
  tryAgainLater: 1013,
  tokenInvalid: 4001,
  tokenExpired: 4002,
  notAllowed: 4003,
  slowConsumer: 4008,
  replaced: 4009,
  /** Too many connections of a peer or with a key. */
  overQuota: 4010,
  disconnected: 4020,
  /** Only if an idle timeout is configured. */
  idle: 4028,
  tooManyMessages: 4029
} as const

export interface Meaning { readonly meaning: string, readonly advice: string }

/** The meaning of each code of `error` frames, and how a client should react. */
export const errorMeanings: Readonly<Record<ErrorCode, Meaning>> = {
  malformed_message: { meaning: 'not JSON, not an object, or with a forbidden member', advice: 'fix the client' },
  unknown_type: { meaning: 'this tier does not support the type of the frame', advice: 'fix the client' },
  invalid_frame: { meaning: 'a member is missing or invalid; `message` names it', advice: 'fix the client' },
  missing_data: { meaning: 'the frame contains no data', advice: 'fix the client' },
  unsupported_encoding: {
    meaning: 'a binary message without a negotiated subprotocol that defines its encoding',
    advice: 'negotiate MessagePack, or send text'
  },
  message_too_large: { meaning: 'over the size limit of the tier', advice: 'send less data' },
  rate_limited: {
    meaning: 'the rate limit of the connection, of the agent, user or admin, or of the address is reached; the frame had no effect',
    advice: 'wait `retryAfterMs`, then send the frame again: it is accepted if no other frame was sent meanwhile'
  },
  action_not_permitted: { meaning: 'the token does not permit the action', advice: '' },
  channel_not_authorized: { meaning: 'the token does not permit the action in this channel', advice: '' },
  channel_reserved: { meaning: 'clients may not use this channel name', advice: 'use another name' },
  invalid_channel: { meaning: 'not a valid channel name, or a pattern where a name is required', advice: 'fix the client' },
  invalid_peer_id: { meaning: 'not a valid peer id', advice: 'fix the client' },
  channel_limit_exceeded: { meaning: 'too many subscriptions on this connection', advice: 'unsubscribe from other channels' },
  peer_not_found: { meaning: 'no peer with this id is connected or registered', advice: '' },
  agent_offline: {
    meaning: 'the agent is not registered or not connected',
    advice: 'if it is the client\'s own agent, register; otherwise try again later'
  },
  no_responders: { meaning: 'no connected agent can answer the request', advice: 'try again later' },
  deadline_exceeded: { meaning: 'no reply arrived in time', advice: 'send the request again with a longer timeout' },
  rejected: { meaning: 'the responder rejected the request; `reason` is its code', advice: '' },
  unknown_request: { meaning: 'no open request with this id belongs to the client', advice: 'discard the request' },
  storage_unavailable: { meaning: 'the store is unavailable', advice: 'wait `retryAfterMs`' },
  backend_error: { meaning: 'a hook of the host application failed', advice: 'try again later' },
  internal_error: { meaning: 'an internal error of the registry', advice: 'try again later' }
}

/** The reasons of each close code, and how a client should react. */
export const closeMeanings: Readonly<Record<keyof typeof closeCodes, Meaning>> = {
  normal: { meaning: '`Goodbye`', advice: 'nothing: the client asked for it' },
  goingAway: {
    meaning: '`Going away`',
    advice: 'reconnect after the `retryAfterMs` of `going_away`, then with back-off and jitter'
  },
  abnormal: {
    meaning: 'never sent; the client reports it when the connection ended without a close frame',
    advice: 'reconnect with back-off and jitter'
  },
  policyViolation: { meaning: 'those of `auth_error`, and `Authentication timeout`', advice: 'authenticate with the first frame' },
  tooBig: { meaning: 'a frame of more than 256 KiB', advice: 'send less data' },
  internal: { meaning: 'an internal error of the registry', advice: 'reconnect with back-off and jitter' },
  tryAgainLater: {
    meaning: '`Too many connections`: the tier became full between the upgrade and the authentication',
    advice: 'reconnect later'
  },
  tokenInvalid: {
    meaning: '`Invalid token`, `Token revoked`, `Session ended`; on `/dashboard/ws` also `Auth frame required`, ' +
      '`Authentication token required`, `Authentication timeout`',
    advice: 'get another token; an agent registers again'
  },
  tokenExpired: { meaning: '`Token expired`', advice: 'get another token' },
  notAllowed: { meaning: '`Insufficient permissions`, on `/dashboard/ws` `Admin role required`', advice: 'use another type of token' },
  slowConsumer: { meaning: '`Slow consumer`: more than 4 MiB of outgoing data were waiting', advice: 'read faster' },
  replaced: { meaning: '`Replaced by a newer instance`', advice: 'do not reconnect: a newer instance of this agent is running' },
  overQuota: {
    meaning: '`Too many connections of this peer`, `Too many connections with this key`',
    advice: 'close other connections first, or reconnect much later'
  },
  disconnected: { meaning: '`Disconnected by an admin`', advice: 'do not reconnect, or request another token' },
  idle: {
    meaning: '`Idle`: only pings were received within the idle timeout, if one is configured',
    advice: 'send frames, or do not reconnect'
  },
  tooManyMessages: {
    meaning: '`Too many messages`: the client ignored `rate_limited` for 10 s without a pause of one second, or more than 1000 ' +
      'frames or 1 MiB were waiting to be processed',
    advice: 'send less'
  }
}

/** Codes that clients of the Metered protocol do not know, and the codes that they receive instead. */
const v1Replacements: Partial<Record<ErrorCode, ErrorCode>> = {
  invalid_frame: 'malformed_message',
  storage_unavailable: 'backend_error'
}

/** The code of an `error` frame on `/v1`. */
export function v1Code (code: ErrorCode): ErrorCode {
  return v1Replacements[code] ?? code
}

/** Mean of the random delay after which a client should retry. */
const storageRetryMs = 2000

const codesByProblem: Partial<Record<ProblemType, ErrorCode>> = {
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
  if (type === 'quota-exceeded' || type === 'rate-limit-exceeded') return { retryAfterMs: Number(members?.retry_after) * 1000 }
  return type === 'request-rejected' ? { reason: members?.reason } : {}
}

/** The code and further members of the `error` frame for an error; undefined for an error that clients must not see. */
export function errorOf (error: unknown): { code: ErrorCode, extras: object } | undefined {
  if (!isProblem(error)) return undefined
  const code = codesByProblem[error.type]
  return code && { code, extras: extrasOf(error) }
}
