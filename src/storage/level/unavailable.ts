import { problem } from '../../errors.js'

const retryAfterSeconds = 2

/** What a call gets whose effect cannot be written. */
export function storageUnavailable (reason: string | null) {
  return problem('storage-unavailable', `The store cannot write: ${reason}`, {
    members: { retry_after: retryAfterSeconds },
    headers: { 'retry-after': String(retryAfterSeconds) }
  })
}
