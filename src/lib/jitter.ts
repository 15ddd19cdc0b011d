/** `ms`, and up to `share` of it more or less: many who wait for the same do not come back in one instant. */
export function jittered (ms: number, share: number): number {
  return ms * (1 - share + 2 * share * Math.random())
}
