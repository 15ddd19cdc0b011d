import type { Clock } from '../../lib/clock.js'
import { AgentCommands } from './agent-commands.js'
import { RedisAgentStore } from './agent-store.js'
import { Connections, type RedisConnection } from './connections.js'
import { RedisKeyValueStore } from './kv-store.js'
import { RedisMessageBroker, type RedisMessageBrokerOptions } from './message-broker.js'

export interface RedisStorageOptions {
  connection: RedisConnection
  /** Separates registries that use the same Redis: the processes of one namespace share everything. */
  namespace: string
  leaseMs: number
  retentionMs: number
  preservation?: boolean
  /** The number of newest changes that are kept for processes and clients that reconnect (default 10,000). */
  changes?: number
  /** How often the delivery of messages and changes is checked (ms; default 2,000). */
  probeIntervalMs?: number
  /** The time limit of a command, after which Redis counts as unavailable (ms; default 1,500). */
  commandTimeoutMs?: number
  messaging?: Pick<RedisMessageBrokerOptions, 'limits' | 'presenceTtlMs'>
  /** Called with errors that happen outside of calls. */
  onError: (error: unknown) => void
  /** Replaces the time of Redis in all processes (for tests). */
  clock?: Clock
}

/** Keeps everything in Redis: stand-alone, with Sentinels or as a Cluster. */
export class RedisStorage {
  readonly kind = 'redis'
  readonly agents: RedisAgentStore
  readonly kv: RedisKeyValueStore
  readonly broker: RedisMessageBroker

  constructor (options: RedisStorageOptions) {
    const { connection, namespace, leaseMs, retentionMs, preservation = true, changes = 10_000, messaging, onError, clock } = options
    const { probeIntervalMs = 2000, commandTimeoutMs = 1500 } = options
    const connections = new Connections({ connection, namespace, commandTimeoutMs, blockMs: probeIntervalMs })
    const commands = new AgentCommands(connections, { leaseMs, retentionMs, preservation, changes, clock })
    const latest = () => commands.latest()
    const now = () => Math.floor(commands.redisTime() ?? Date.now())
    this.agents = new RedisAgentStore(connections, commands, { leaseMs, changes, probeIntervalMs, onError })
    this.kv = new RedisKeyValueStore(connections, { latest, onError, clock })
    this.broker = new RedisMessageBroker(connections, { ...messaging, now, latest, onError })
  }
}
