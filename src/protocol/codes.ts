import { isProblem, type ProblemError, type ProblemType } from '../errors.js'
import { jittered } from '../lib/jitter.js'

/** Codes of `error` frames. The socket lives on after each of them. */
export const errorCodes = [
  'malformed_message', 'unknown_type', 'invalid_frame', 'missing_data', 'unsupported_encoding', 'message_too_large',
  'rate_limited', 'action_not_permitted', 'channel_not_authorized', 'channel_reserved', 'invalid_channel', 'channel_limit_exceeded', 'invalid_peer_id',
  'peer_not_found', 'agent_offline', 'no_responders', 'deadline_exceeded', 'rejected',
  'unknown_request', 'backend_error', 'storage_unavailable', 'internal_error'
] as const
export type ErrorCode = typeof errorCodes[number]

/** Close codes: RFC 6455 §7.4.1 below 4000, those of this protocol from there. */
export const closeCodes = {
  normal: 1000,
  goingAway: 1001,
  /** Never sent: what is heard when no close frame came. */
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
  /** Too many sockets of a peer, or by a key. */
  overQuota: 4010,
  disconnected: 4020,
  /** Only where a time is set after which whoever says nothing has to go. */
  idle: 4028,
  tooManyMessages: 4029
} as const

export interface Meaning { readonly meaning: string, readonly advice: string }

/** What codes of `error` frames mean, and what a client does then. */
export const errorMeanings: Readonly<Record<ErrorCode, Meaning>> = {
  malformed_message: { meaning: 'not JSON, not an object, or with a member that is never allowed', advice: 'fix the client' },
  unknown_type: { meaning: 'this tier has no such frame', advice: 'fix the client' },
  invalid_frame: { meaning: 'a member is missing or wrong; `message` says which', advice: 'fix the client' },
  missing_data: { meaning: 'the frame holds nothing that can be acted on', advice: 'fix the client' },
  unsupported_encoding: { meaning: 'a binary message without the subprotocol that says what it is', advice: 'negotiate MessagePack, or send text' },
  message_too_large: { meaning: 'over the limit of the tier', advice: 'send less' },
  rate_limited: { meaning: 'too many frames of the connection, the agent, user or admin, or the address; this one was not acted on', advice: 'wait `retryAfterMs`: after it this very frame passes, if nothing else was sent' },
  action_not_permitted: { meaning: 'not with this token', advice: '' },
  channel_not_authorized: { meaning: 'not in this channel with this token', advice: '' },
  channel_reserved: { meaning: 'the name of the channel is not for clients', advice: 'take another name' },
  invalid_channel: { meaning: 'not the name of a channel, or a pattern where one is needed', advice: 'fix the client' },
  invalid_peer_id: { meaning: 'not the name of a peer', advice: 'fix the client' },
  channel_limit_exceeded: { meaning: 'too many subscriptions on this connection', advice: 'unsubscribe from others' },
  peer_not_found: { meaning: 'nobody of that name is connected or registered', advice: '' },
  agent_offline: { meaning: 'the agent is not registered, or not connected', advice: 'register; of another agent: try again later' },
  no_responders: { meaning: 'no agent that could answer is connected', advice: 'try again later' },
  deadline_exceeded: { meaning: 'no answer came in time', advice: 'ask again, with more time' },
  rejected: { meaning: 'the other side refused; `reason` is its code', advice: '' },
  unknown_request: { meaning: 'no such request, or it is somebody else\'s, or over', advice: 'forget it' },
  storage_unavailable: { meaning: 'the store cannot be used at the moment', advice: 'wait `retryAfterMs`' },
  backend_error: { meaning: 'a hook of the host failed', advice: 'try again later' },
  internal_error: { meaning: 'a fault of the registry', advice: 'try again later' }
}

/** Of each close code its reasons, and what a client does then. */
export const closeMeanings: Readonly<Record<keyof typeof closeCodes, Meaning>> = {
  normal: { meaning: '`Goodbye`', advice: 'nothing: as asked' },
  goingAway: { meaning: '`Going away`', advice: 'come back after the `retryAfterMs` of `going_away`, then with back-off and jitter' },
  abnormal: { meaning: 'never sent; what a client sees when the connection was cut', advice: 'come back with back-off and jitter' },
  policyViolation: { meaning: 'those of `auth_error`, and `Authentication timeout`', advice: 'authenticate with the first frame' },
  tooBig: { meaning: 'a frame of more than 256 KiB', advice: 'send less' },
  internal: { meaning: 'a fault of the registry', advice: 'come back with back-off and jitter' },
  tryAgainLater: { meaning: '`Too many connections`: the tier filled up between the upgrade and the token', advice: 'come back later' },
  tokenInvalid: { meaning: '`Invalid token`, `Token revoked`, `Session ended`; on `/dashboard/ws` also `Auth frame required`, `Authentication token required`, `Authentication timeout`', advice: 'get another token; an agent registers again' },
  tokenExpired: { meaning: '`Token expired`', advice: 'get another token' },
  notAllowed: { meaning: '`Insufficient permissions`, on `/dashboard/ws` `Admin role required`', advice: 'use another kind of token' },
  slowConsumer: { meaning: '`Slow consumer`: more than 4 MiB were waiting to be read', advice: 'read faster' },
  replaced: { meaning: '`Replaced by a newer instance`', advice: 'stop: this agent runs elsewhere' },
  overQuota: { meaning: '`Too many connections of this peer`, `Too many connections with this key`', advice: 'close others first, or come back much later' },
  disconnected: { meaning: '`Disconnected by an admin`', advice: 'stay away, or ask for another token' },
  idle: { meaning: '`Idle`: nothing but pings for the idle time, where one is set', advice: 'send something, or stay away' },
  tooManyMessages: { meaning: '`Too many messages`: `rate_limited` was ignored for 10 s without a pause of one, or 1000 frames or 1 MiB were waiting', advice: 'send less' }
}

/** Codes that clients of the Metered protocol know, in place of those that they do not. */
const known: Partial<Record<ErrorCode, ErrorCode>> = {
  invalid_frame: 'malformed_message',
  storage_unavailable: 'backend_error'
}

export function v1Code (code: ErrorCode): ErrorCode {
  return known[code] ?? code
}

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
