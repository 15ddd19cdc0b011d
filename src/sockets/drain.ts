import { setTimeout as delay } from 'node:timers/promises'
import { closeCodes } from '../protocol/codes.js'
import type { Connection } from './connection.js'

/** A few connections are closed faster than over the whole drain time. */
const msPerClose = 10
/** Interval at which due connections are looked for. */
const pollMs = 10
/** Time after its slot in which a client receives its last replies, and the same again in which it answers the close. */
const maxGraceMs = 2_000
/** The longest time that a drain takes beyond the time over which it is spread. */
export const drainGraceMs = 2 * maxGraceMs

/** A connection and the time at which it is to close (ms of performance.now). */
interface Departure { readonly connection: Connection, readonly at: number }

/**
 * Sends each connection `going_away` with its own random delay and closes it after that delay, so that clients reconnect
 * spread over time even if they ignore the frame. Takes at most `ms`, and less for few connections. Frames that a client
 * sent before it received `going_away` are answered before the close, unless that takes too long.
 */
export async function drain (connections: readonly Connection[], ms: number): Promise<void> {
  const graceMs = Math.min(ms / 2, maxGraceMs)
  const departures = announce(connections, Math.min(ms, connections.length * msPerClose)).values()
  let next = departures.next()
  let leaving: Departure[] = []
  while (!next.done || leaving.length > 0) {
    const now = performance.now()
    for (; !next.done && next.value.at <= now; next = departures.next()) {
      next.value.connection.inbound.retire()
      leaving.push(next.value)
    }
    leaving = leaving.filter(departure => !closeIfReady(departure, now, graceMs))
    await delay(pollMs)
  }
}

/** Waits until all connections have closed, and terminates those that have not after the grace time. */
export async function terminate (connections: () => Iterable<Connection>, ms: number): Promise<void> {
  const deadline = performance.now() + Math.min(ms / 2, maxGraceMs)
  while (!isEmpty(connections()) && performance.now() < deadline) await delay(pollMs)
  for (const connection of connections()) connection.transport.terminate()
}

/** Announces the shutdown to a late connection and closes it at once. */
export function sendAway (connection: Connection): void {
  connection.announceShutdown(0)
  goAway(connection)
}

/** @returns departures in the order of their times */
function announce (connections: readonly Connection[], spreadMs: number): Departure[] {
  const now = performance.now()
  return connections.map((connection, index) => {
    const retryAfterMs = Math.floor(spreadMs * (index + Math.random()) / connections.length)
    connection.announceShutdown(retryAfterMs)
    return { connection, at: now + retryAfterMs }
  })
}

function closeIfReady ({ connection, at }: Departure, now: number, graceMs: number): boolean {
  if (!connection.inbound.isSettled && connection.isOpen && now < at + graceMs) return false
  goAway(connection)
  return true
}

const goAway = (connection: Connection) => { connection.close(closeCodes.goingAway, 'Going away') }

const isEmpty = ([first]: Iterable<Connection>) => first === undefined
