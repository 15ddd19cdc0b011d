import { monotonicClock } from '../lib/clock.js'
import type { Broker, BrokerLimits } from './message-broker.js'
import { MemoryBroker } from './memory/message-broker.js'
import { MemoryState } from './memory/kv-store.js'
import { MemoryStore, type MemoryStoreOptions } from './memory/agent-store.js'
import type { StateStore } from './kv-store.js'
import type { AgentStore } from './agent-store.js'

/** `custom` is somebody's own store. */
export type StorageKind = 'memory' | 'level' | 'redis' | 'custom'

/**
 * Where a registry keeps what it must not forget. `agents` is opened first and closed last; they may share a
 * connection or database inside. Times of both are by the clock of `agents.now`. Closing what is not open does nothing.
 */
export interface Storage {
  readonly kind: StorageKind
  readonly agents: AgentStore
  readonly state: StateStore
  /** What its peers say to each other, and where they are. */
  readonly broker: Broker
}

export interface MemoryStorageOptions extends MemoryStoreOptions {
  /** How much of what peers say is kept. */
  messaging?: { limits?: Partial<BrokerLimits> }
}

/** All of it in this process: nothing survives it. */
export class MemoryStorage implements Storage {
  readonly kind = 'memory'
  readonly agents: MemoryStore
  readonly state: MemoryState
  readonly broker: MemoryBroker

  constructor ({ clock = monotonicClock(), messaging, ...options }: MemoryStorageOptions) {
    this.agents = new MemoryStore({ ...options, clock })
    this.state = new MemoryState({ clock })
    this.broker = new MemoryBroker({ ...messaging, clock })
  }
}
