import type { ErrorCode } from './codes.js'

/** Codes that clients of the Metered protocol know, in place of those that they do not. */
const known: Partial<Record<ErrorCode, ErrorCode>> = {
  invalid_frame: 'malformed_message',
  storage_unavailable: 'backend_error'
}

export function v1Code (code: ErrorCode): ErrorCode {
  return known[code] ?? code
}
