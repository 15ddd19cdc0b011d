import { setTimeout as sleep } from 'node:timers/promises'
import type { Clock } from '../../lib/clock.js'

/** Time in which a promise is tried: one that the suite moves, or the real one, which it waits for. */
export function timeOf (isInjected: boolean): { clock: Clock, pass: (ms: number) => Promise<void> } {
  let now = Date.now()
  async function pass (ms: number) {
    if (isInjected) now += ms
    // Real stores are late by some milliseconds.
    else await sleep(ms + 20)
  }
  return { clock: isInjected ? () => now : Date.now, pass }
}
