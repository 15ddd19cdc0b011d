/** `ms`, and up to `share` of it more or less: many who wait for the same do not come back in one instant. */
export function jittered (ms: number, share: number): number {
  return ms * (1 - share + 2 * share * Math.random())
}

/** Extras of a problem that say when to try again. `Retry-After` is rounded up, so that nobody obedient is early. */
export function retryAfter (ms: number): { members: { retry_after: number }, headers: { 'retry-after': string } } {
  const seconds = Math.max(1, Math.ceil(ms / 1000))
  return { members: { retry_after: seconds }, headers: { 'retry-after': String(seconds) } }
}
