import { performance } from 'node:perf_hooks'

/** Milliseconds since the epoch. */
export type Clock = () => number

/**
 * A clock that never goes back and does not follow a change of the system's time: leases that were measured with it
 * neither end early nor live on when somebody sets the clock.
 */
export function monotonicClock (): Clock {
  const offset = Date.now() - performance.now()
  return function now () { return Math.floor(offset + performance.now()) }
}
