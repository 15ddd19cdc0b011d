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
