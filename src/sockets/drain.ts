import { setTimeout as delay } from 'node:timers/promises'
import { closeCodes } from '../protocol/codes.js'
import type { Connection } from './connection.js'

/** A few connections need not wait for the whole time that many are spread over. */
const msPerClose = 10
/** How often it is looked whose time has come. */
const lookMs = 10
/** Time after its slot in which a client gets its last answers, and then as long to answer the close. */
const maxPatienceMs = 2_000
/** What a drain takes at most beside the time over which it is spread. */
export const drainGraceMs = 2 * maxPatienceMs

/** A connection and the time (ms by performance.now) at which it is to go. */
interface Departure { readonly connection: Connection, readonly at: number }

/**
 * Tells everybody when to come back, each at another time, and closes each at that time, so that those who do not
 * understand it come back as spread. Takes `ms` for that at most, less when there are few. What a client sent before it
 * was told is answered before it is closed, unless that takes too long.
 */
export async function drain (connections: readonly Connection[], ms: number): Promise<void> {
  const patienceMs = Math.min(ms / 2, maxPatienceMs)
  const departures = announce(connections, Math.min(ms, connections.length * msPerClose))
  let leaving: Departure[] = []
  for (let next = 0; next < departures.length || leaving.length > 0;) {
    const now = performance.now()
    for (; next < departures.length && departures[next]!.at <= now; next++) leaving.push(retire(departures[next]!))
    leaving = leaving.filter(departure => !hasLeft(departure, now, patienceMs))
    await delay(lookMs)
  }
}

/** Waits for those who have been told to go, and cuts off who is still there after that. */
export async function clear (connections: () => Iterable<Connection>, ms: number): Promise<void> {
  const deadline = performance.now() + Math.min(ms / 2, maxPatienceMs)
  while (!isEmpty(connections()) && performance.now() < deadline) await delay(lookMs)
  for (const connection of connections()) connection.transport.terminate()
}

/** Tells one that comes too late to go at once. */
export function sendAway (connection: Connection): void {
  connection.announceEnd(0)
  goAway(connection)
}

/** @returns in the order in which they go */
function announce (connections: readonly Connection[], spreadMs: number): Departure[] {
  const now = performance.now()
  return connections.map((connection, index) => {
    const slot = Math.floor(spreadMs * (index + Math.random()) / connections.length)
    connection.announceEnd(slot)
    return { connection, at: now + slot }
  })
}

function retire (departure: Departure): Departure {
  departure.connection.retire()
  return departure
}

function hasLeft ({ connection, at }: Departure, now: number, patienceMs: number): boolean {
  if (!connection.isSettled && connection.isOpen && now < at + patienceMs) return false
  goAway(connection)
  return true
}

const goAway = (connection: Connection) => { connection.close(closeCodes.goingAway, 'Going away') }

const isEmpty = ([first]: Iterable<Connection>) => first === undefined
