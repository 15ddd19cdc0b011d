import { OptionsError } from '../errors.js'
import { monotonicClock } from '../lib/clock.js'
import type { ResolvedOptions } from '../options.js'
import type { AgentStore } from './agent-store.js'
import type { KeyValueStore } from './kv-store.js'
import { MemoryAgentStore, type MemoryAgentStoreOptions } from './memory/agent-store.js'
import { MemoryKeyValueStore } from './memory/kv-store.js'
import { MemoryMessageBroker } from './memory/message-broker.js'
import type { BrokerLimits, MessageBroker } from './message-broker.js'
import type { RedisConnection } from './redis/connections.js'

/** `custom` is a storage of the host application. */
export type StorageKind = 'memory' | 'level' | 'redis' | 'custom'

/**
 * The stores of a registry. `agents` is opened first and closed last; the members may share a connection or database.
 * All times are by the clock of `agents.now`. Closing a member that is not open has no effect.
 */
export interface Storage {
  readonly kind: StorageKind
  readonly agents: AgentStore
  readonly kv: KeyValueStore
  readonly broker: MessageBroker
}

/** The stores of a host application. Without `kv` or `broker` these are kept in memory, by the clock of `agents.now`. */
export interface CustomStorage {
  readonly agents: AgentStore
  readonly kv?: KeyValueStore
  readonly broker?: MessageBroker
}

export interface MemoryStorageOptions extends MemoryAgentStoreOptions {
  messaging?: { limits?: Partial<BrokerLimits> }
}

/** Keeps everything in the memory of this process. */
export class MemoryStorage implements Storage {
  readonly kind = 'memory'
  readonly agents: MemoryAgentStore
  readonly kv: MemoryKeyValueStore
  readonly broker: MemoryMessageBroker

  constructor ({ clock = monotonicClock(), messaging, ...options }: MemoryStorageOptions) {
    this.agents = new MemoryAgentStore({ ...options, clock })
    this.kv = new MemoryKeyValueStore({ clock })
    this.broker = new MemoryMessageBroker({ ...messaging, clock })
  }
}

/** Parses `host:port`. An IPv6 host is in brackets. */
function parseAddress (text: string): { host: string, port: number } {
  const end = text.lastIndexOf(':')
  return { host: text.slice(0, end).replace(/^\[|\]$/g, ''), port: Number(text.slice(end + 1)) }
}

/**
 * How to connect to Redis: with a client of the host, to a Cluster, through Sentinels, to a URL or to a host, in this
 * order of precedence.
 */
export function connectionOf (options: ResolvedOptions['redis']): RedisConnection {
  const { url, host, port, db, username, password, tls, sentinels, sentinelName, cluster, client } = options
  if (client) return { client }
  const login = { username, password, ...(tls && { tls: {} }) }
  if (cluster) return { ...login, cluster: cluster.map(parseAddress) }
  if (sentinels && sentinelName === undefined) throw new OptionsError('redis.sentinelName: required with redis.sentinels')
  if (sentinels) return { ...login, db, sentinels: sentinels.map(parseAddress), name: sentinelName }
  return url === undefined ? { ...login, db, host: host ?? '127.0.0.1', port } : { ...login, url }
}

function messagingOf ({ messaging }: ResolvedOptions) {
  const { historyEntries: entries, historyBytes: bytes, historyAgeMs: ageMs, msgIdMs, presenceTtlMs } = messaging
  return { limits: { entries, bytes, ageMs, msgIdMs }, presenceTtlMs }
}

function isCustomStorage (storage: object): storage is CustomStorage {
  return 'agents' in storage && typeof storage.agents === 'object' && storage.agents !== null
}

function completeStorage (storage: object, limits: BrokerLimits): Storage {
  if (!isCustomStorage(storage)) throw new OptionsError('storage: expected an object with the member agents, an AgentStore')
  const { agents } = storage
  const clock = () => agents.now()
  const { kv = new MemoryKeyValueStore({ clock }), broker = new MemoryMessageBroker({ limits, clock }) } = storage
  return { kind: 'custom', agents, kv, broker }
}

/**
 * Creates the storage that the options name; the caller opens it. The module and the client library of a kind of storage
 * are loaded only when it is used.
 * @param onError called with errors that happen outside of calls
 */
export async function createStorage (options: ResolvedOptions, onError: (error: unknown) => void): Promise<Storage> {
  const { lease, storage, level, redis, namespace, feed } = options
  const messaging = messagingOf(options)
  if (typeof storage === 'object') return completeStorage(storage, messaging.limits)
  const settings = { leaseMs: lease.durationMs, retentionMs: lease.retentionMs, preservation: lease.preservation, messaging }
  if (storage === 'memory') return new MemoryStorage(settings)
  const durable = { ...settings, changes: feed.ringSize }
  if (storage === 'level') {
    const { LevelStorage } = await import('./level/storage.js')
    return new LevelStorage({ ...durable, ...level })
  }
  const { commandTimeoutMs, probeIntervalMs } = redis
  const { RedisStorage } = await import('./redis/storage.js')
  return new RedisStorage({ ...durable, namespace, commandTimeoutMs, probeIntervalMs, connection: connectionOf(redis), onError })
}
