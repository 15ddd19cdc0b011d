import type { Test } from 'tap'
import type { RedisStorageOptions } from '../../src/storage/redis/storage.js'
import { Peer } from './redis.js'
import { RedisProxy } from './redis-proxy.js'
import { eventually, RedisServer } from './redis-server.js'
import { BrokerProcess } from '../../src/storage/contract/broker-scene.js'

export const unavailable = { type: 'storage-unavailable', statusCode: 503, headers: { 'retry-after': '2' } }

/** A process that uses Redis as a registry does, including the monitor of leases and connections. */
export class Process extends BrokerProcess {
  readonly peer: Peer

  constructor (peer: Peer) {
    super(peer.storage.broker)
    this.peer = peer
  }

  /** Whether the process has detected the Redis outage. */
  get isAway () { return typeof this.peer.faults.at(-1) === 'string' }
}

export async function start (t: Test, ...args: string[]): Promise<RedisServer> {
  const server = await RedisServer.start(...args)
  t.teardown(() => server.stop())
  return server
}

export async function join (t: Test, server: RedisServer, options: Partial<RedisStorageOptions> = {}): Promise<Process> {
  const peer = await Peer.open(
    server, { namespace: 'n', probeIntervalMs: 300, commandTimeoutMs: 1000, messaging: { presenceTtlMs: 1500 }, ...options }
  )
  t.teardown(() => peer.close())
  const process = new Process(peer)
  await process.open()
  t.teardown(() => process.broker.close())
  return process
}

/** A process whose connection to Redis can be closed. */
export async function through (
  t: Test, server: RedisServer, options: Partial<RedisStorageOptions> = {}
): Promise<[process: Process, proxy: RedisProxy]> {
  const proxy = await RedisProxy.start(server)
  t.teardown(() => { proxy.stop() })
  return [await join(t, server, { connection: { path: proxy.path }, ...options }), proxy]
}

export const away = (...processes: Process[]) => eventually('every process lost Redis', () => processes.every(process => process.isAway))
export const back = (...processes: Process[]) =>
  eventually('every process reconnects to Redis', () => processes.every(({ peer }) => peer.faults.at(-1) === null))

/** Outcome of a call. */
export const faultOf = (call: Promise<unknown>) => call.then(() => 'none', (error: unknown) => error)

/** Retries until Redis is reachable. */
export async function persist<T> (call: () => Promise<T>): Promise<T> {
  let result: T | undefined
  await eventually('Redis answers', () => call().then(value => { result = value; return true }, () => false))
  return result as T
}
