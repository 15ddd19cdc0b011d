import { monotonicClock, type Clock } from '../../lib/clock.js'
import { MemoryMessageBroker } from '../memory/message-broker.js'
import type { BrokerLimits } from '../message-broker.js'
import { LevelAgentStore } from './agent-store.js'
import type { Durability } from './database.js'
import { SharedDatabase } from './journal.js'
import { LevelKeyValueStore } from './kv-store.js'

export interface LevelStorageOptions {
  /** The folder of the store. It is created if it does not exist. */
  path: string
  /** Whether acknowledged writes survive the end of the process (`commit`, default) or also of the machine (`sync`). */
  durability?: Durability
  leaseMs: number
  retentionMs: number
  preservation?: boolean
  /** The number of newest changes that are kept for clients that reconnect (default 10,000). */
  changes?: number
  messaging?: { limits?: Partial<BrokerLimits> }
  clock?: Clock
}

/** Keeps agents and key-value entries of one process in a folder, in a LevelDB database that is checked at the start. */
export class LevelStorage {
  readonly kind = 'level'
  readonly folder: string
  readonly agents: LevelAgentStore
  readonly kv: LevelKeyValueStore
  readonly broker: MemoryMessageBroker

  constructor ({ path, durability = 'commit', changes = 10_000, clock = monotonicClock(), messaging, ...options }: LevelStorageOptions) {
    this.folder = path
    const shared = new SharedDatabase(path, durability)
    this.agents = new LevelAgentStore(shared, { ...options, changes, clock })
    this.kv = new LevelKeyValueStore(shared, clock)
    this.broker = new MemoryMessageBroker({ ...messaging, clock })
  }
}
