import { OptionsError } from '../errors.js'
import { MemoryMessageBroker } from './memory/message-broker.js'
import type { ResolvedOptions } from '../options.js'
import { MemoryKeyValueStore } from './memory/kv-store.js'
import type { RedisConnection } from './redis/connections.js'
import { MemoryStorage, type Storage } from './storage.js'

/** `host:port`, the host of an IPv6 address in brackets. */
function nodeOf (text: string): { host: string, port: number } {
  const end = text.lastIndexOf(':')
  return { host: text.slice(0, end).replace(/^\[|\]$/g, ''), port: Number(text.slice(end + 1)) }
}

/** Where Redis is: a client of the host, the nodes of a Cluster, Sentinels, a URL or a host, in this order. */
export function connectionOf ({ url, host, port, db, username, password, tls, sentinels, sentinelName, cluster, client }: ResolvedOptions['redis']): RedisConnection {
  if (client) return { client }
  const login = { username, password, ...(tls && { tls: {} }) }
  if (cluster) return { ...login, cluster: cluster.map(nodeOf) }
  if (sentinels && sentinelName === undefined) throw new OptionsError('redis.sentinelName: the Sentinels have to be asked for a name')
  if (sentinels) return { ...login, db, sentinels: sentinels.map(nodeOf), name: sentinelName }
  return url === undefined ? { ...login, db, host: host ?? '127.0.0.1', port } : { ...login, url }
}

function messagingOf ({ messaging: { historyEntries: entries, historyBytes: bytes, historyAgeMs: ageMs, msgIdMs, presenceTtlMs } }: ResolvedOptions) {
  return { limits: { entries, bytes, ageMs, msgIdMs }, presenceTtlMs }
}

/**
 * Where the options say that the registry keeps what it must not forget; not opened yet. What is not used is not loaded.
 * @param onError hears of what goes wrong behind the calls
 */
export async function createStorage (options: ResolvedOptions, onError: (error: unknown) => void): Promise<Storage> {
  const { lease, store, state, storage, level, redis, namespace, feed } = options
  const messaging = messagingOf(options)
  if (store) {
    const clock = () => store.now()
    return { kind: 'custom', agents: store, kv: state ?? new MemoryKeyValueStore({ clock }), broker: new MemoryMessageBroker({ limits: messaging.limits, clock }) }
  }
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
