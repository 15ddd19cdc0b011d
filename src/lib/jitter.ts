/** Adds or subtracts up to `share` of `ms` at random, so that clients which wait for the same time do not retry at once. */
export function jittered (ms: number, share: number): number {
  return ms * (1 - share + 2 * share * Math.random())
}
