export type AuthEventType =
  | 'login_success' | 'login_failed' | 'login_limited'
  | 'temp_token_success' | 'temp_token_failed' | 'temp_token_limited'
  | 'logout' | 'pin_set' | 'pin_verify_success' | 'pin_verify_failed'
  | 'token_revoked' | 'agent_revoked' | 'lockout' | 'permission_denied'

/** What happened to somebody's rights, for the log. No member holds a secret, a token or a PIN. */
export interface AuthEvent {
  type: AuthEventType
  /** Who it was: the name of an admin, the id of an agent. */
  subject?: string
  /** What it was done to, when that is somebody or something else. */
  target?: string
  /** Where it came from. */
  address?: string
  /** Whatever else is worth showing; scalars. */
  details?: Record<string, unknown>
}

export type AuthEventListener = (event: AuthEvent) => void
