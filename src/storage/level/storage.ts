import { monotonicClock, type Clock } from '../../lib/clock.js'
import type { BrokerLimits } from '../message-broker.js'
import { MemoryMessageBroker } from '../memory/message-broker.js'
import { LevelAgentStore } from './agent-store.js'
import type { Durability } from './database.js'
import { SharedDatabase } from './shared.js'
import { LevelKeyValueStore } from './kv-store.js'

export interface LevelStorageOptions {
  /** Folder of the store; made when it is not there. */
  path: string
  /** What an acknowledged write survives: `commit` the end of the process (default), `sync` the end of the machine. */
  durability?: Durability
  leaseMs: number
  retentionMs: number
  preservation?: boolean
  /** How many of the newest changes are kept for readers that come back (default 10,000). */
  changes?: number
  /** How much of what peers say is kept. */
  messaging?: { limits?: Partial<BrokerLimits> }
  clock?: Clock
}

/** One process's agents and shared facts in a folder: LevelDB, checked at the start and never repaired silently. */
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
