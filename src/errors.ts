import createError, { type FastifyErrorConstructor } from '@fastify/error'

/**
 * All problem types of this package (RFC 9457): suffix of the type URI → title and HTTP status.
 * The same table is served at `/problems/<suffix>`.
 */
export const problemTypes = {
  'agent-not-found': ['Agent Not Found', 404],
  'agent-not-available': ['Agent Not Available', 404],
  'agent-registration-failed': ['Agent Registration Failed', 400],
  'duplicate-agent': ['Duplicate Agent', 409],
  'stale-incarnation': ['Stale Incarnation', 409],
  'name-taken': ['Name Taken', 409],
  'request-in-progress': ['Request In Progress', 409],
  'idempotency-key-reused': ['Idempotency Key Reused', 422],
  'authentication-failed': ['Authentication Failed', 401],
  'token-invalid': ['Invalid or Expired Token', 401],
  'session-invalid': ['Session Validation Failed', 401],
  'insufficient-permissions': ['Insufficient Permissions', 403],
  'pin-required': ['PIN Required', 400],
  'pin-already-set': ['PIN Already Set', 400],
  'pin-not-set': ['PIN Not Set', 400],
  'pin-incorrect': ['Incorrect PIN', 401],
  'configuration-error': ['Service Configuration Error', 500],
  'validation-failed': ['Request Validation Failed', 422],
  'invalid-input': ['Invalid Input Data', 400],
  'required-header-missing': ['Required Header Missing', 400],
  'precondition-failed': ['Precondition Failed', 412],
  'rate-limit-exceeded': ['Rate Limit Exceeded', 429],
  'quota-exceeded': ['Quota Exceeded', 429],
  'request-too-large': ['Request Too Large', 413],
  'headers-too-large': ['Request Headers Too Large', 413],
  'unsupported-media-type': ['Unsupported Media Type', 415],
  'request-error': ['Request Processing Error', 400],
  'tpr-disabled': ['Three-Phase Registration Disabled', 400],
  'not-found': ['Resource Not Found', 404],
  'method-not-allowed': ['Method Not Allowed', 405],
  'hook-failed': ['Host Check Failed', 503],
  'too-many-connections': ['Too Many Connections', 503],
  'shutting-down': ['Shutting Down', 503],
  'storage-unavailable': ['Storage Unavailable', 503],
  'peer-not-found': ['Peer Not Found', 404],
  'agent-offline': ['Agent Offline', 503],
  'no-responders': ['No Responders', 503],
  'deadline-exceeded': ['Deadline Exceeded', 504],
  'request-rejected': ['Request Rejected', 502],
  'unknown-request': ['Unknown Request', 404],
  'invalid-channel': ['Invalid Channel', 400],
  'channel-reserved': ['Channel Reserved', 403],
  'channel-not-authorized': ['Channel Not Authorized', 403],
  'channel-limit-exceeded': ['Channel Limit Exceeded', 429],
  'missing-data': ['Missing Data', 400],
  'endpoint-unreachable': ['Endpoint Unreachable', 502],
  'connection-timeout': ['Connection Timeout', 504],
  'internal-error': ['Internal Server Error', 500]
} as const satisfies Record<string, readonly [title: string, status: number]>

export type ProblemType = keyof typeof problemTypes

/** One entry of the `errors` member of a `validation-failed` problem. `path` is a JSON Pointer (RFC 6901). */
export interface FieldError { path: string, message: string }

interface ProblemExtras {
  /** Members added to the problem document; numbers stay numbers. */
  members?: Record<string, unknown>
  /** Response headers, such as `Retry-After`. */
  headers?: Record<string, string>
}

export interface ProblemError extends Error, ProblemExtras {
  code: string
  statusCode: number
  type: ProblemType
}

const constructors = new Map<ProblemType, FastifyErrorConstructor>()

/** The error constructor of a problem type; created on first use. */
function constructorOf (type: ProblemType): FastifyErrorConstructor {
  const known = constructors.get(type)
  if (known) return known
  const [, status] = problemTypes[type]
  const constructor = createError(`AGENT_REGISTRY_${type.toUpperCase().replaceAll('-', '_')}`, '%s', status)
  constructors.set(type, constructor)
  return constructor
}

/** Creates an error that is sent as a problem document of `type`. `detail` is its human-readable text. */
export function problem (type: ProblemType, detail: string, extras: ProblemExtras = {}): ProblemError {
  const Constructor = constructorOf(type)
  return Object.assign(new Constructor(detail), { statusCode: problemTypes[type][1], type, ...extras })
}

export function isProblemType (text: string): text is ProblemType {
  return Object.hasOwn(problemTypes, text)
}

export function isProblem (error: unknown): error is ProblemError {
  return error instanceof Error && 'type' in error && 'statusCode' in error && Object.hasOwn(problemTypes, String(error.type))
}

/** Whether the store is unavailable; the operation may be retried. */
export const isStorageUnavailable = (error: unknown): boolean => isProblem(error) && error.type === 'storage-unavailable'

export function validationFailed (errors: FieldError[]): ProblemError {
  const first = errors[0]
  const detail = first ? `${first.path || '/'}: ${first.message}` : 'The request is invalid'
  return problem('validation-failed', detail, { members: { errors } })
}

/**
 * Extras of a problem that contain the time after which to retry: the header `Retry-After` and the member `retry_after`.
 * Seconds are rounded up, so that a client that obeys them is never early.
 */
export function retryAfter (ms: number): Required<ProblemExtras> {
  const seconds = Math.max(1, Math.ceil(ms / 1000))
  return { members: { retry_after: seconds }, headers: { 'retry-after': String(seconds) } }
}

/** A rate limit or quota is exhausted for `retryAfterMs`. */
export function tooMany (type: 'rate-limit-exceeded' | 'quota-exceeded', detail: string, retryAfterMs: number): ProblemError {
  return problem(type, detail, retryAfter(retryAfterMs))
}

/** Invalid plugin options or environment variables. The message lists all errors. */
export const OptionsError = createError('AGENT_REGISTRY_INVALID_OPTIONS', 'Invalid options: %s', 500)
export const AlreadyRegisteredError = createError(
  'AGENT_REGISTRY_ALREADY_REGISTERED',
  "The decorator '%s' already exists: set 'decorateAs' to another name",
  500
)
/** The embedding of a text failed. Search continues without it. */
export const EmbeddingError = createError('AGENT_REGISTRY_EMBEDDING_FAILED', 'No embedding: %s', 503)
/** A store in an unusable state, which was not opened and not changed. */
export const StoreRefusedError = createError('AGENT_REGISTRY_STORE_REFUSED', 'The store in %s was not opened: %s. %s', 500)
