import { performance } from 'node:perf_hooks'

/** Milliseconds since the epoch. */
export type Clock = () => number

/**
 * Creates a clock that never goes back and does not follow changes of the system time, so that leases end on time when the
 * system clock is set.
 */
export function monotonicClock (): Clock {
  const offset = Date.now() - performance.now()
  return function now () { return Math.floor(offset + performance.now()) }
}
