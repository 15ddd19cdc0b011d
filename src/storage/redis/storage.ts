import type { Clock } from '../../lib/clock.js'
import { RedisMessageBroker, type RedisMessageBrokerOptions } from './message-broker.js'
import { Commands } from './commands.js'
import { Connections, type RedisConnection } from './connections.js'
import { RedisAgentStore } from './agent-store.js'
import { RedisKeyValueStore } from './kv-store.js'

export interface RedisStorageOptions {
  connection: RedisConnection
  /** What processes that share agents share, and other registries in the same Redis do not. */
  namespace: string
  leaseMs: number
  retentionMs: number
  preservation?: boolean
  /** How many of the newest changes are kept for processes and readers that come back. */
  changes?: number
  /** How often the ways that messages and changes take are tried (ms). */
  probeIntervalMs?: number
  /** How long Redis may take to answer before it counts as away (ms). */
  commandTimeoutMs?: number
  /** How much of what peers say is kept, and how soon those of a dead process leave. */
  messaging?: Pick<RedisMessageBrokerOptions, 'limits' | 'presenceTtlMs'>
  /** Hears of what goes wrong behind the calls. */
  onError: (error: unknown) => void
  /** Time of leases instead of that of Redis, the same for all who share it; for tests. */
  clock?: Clock
}

/** Agents, shared facts and messages in Redis: stand-alone, behind Sentinels or in a Cluster. */
export class RedisStorage {
  readonly kind = 'redis'
  readonly agents: RedisAgentStore
  readonly kv: RedisKeyValueStore
  readonly broker: RedisMessageBroker

  constructor ({ connection, namespace, leaseMs, retentionMs, preservation = true, changes = 10_000, probeIntervalMs = 2000, commandTimeoutMs = 1500, messaging, onError, clock }: RedisStorageOptions) {
    const connections = new Connections({ connection, namespace, commandTimeoutMs, blockMs: probeIntervalMs })
    const commands = new Commands(connections, { leaseMs, retentionMs, preservation, changes, clock })
    const latest = () => commands.latest()
    this.agents = new RedisAgentStore(connections, commands, { leaseMs, changes, probeIntervalMs, onError })
    this.kv = new RedisKeyValueStore(connections, { latest, onError, clock })
    this.broker = new RedisMessageBroker(connections, { ...messaging, now: () => Math.floor(commands.redisTime() ?? Date.now()), latest, onError })
  }
}
