import { monotonicClock } from '../lib/clock.js'
import type { MessageBroker, BrokerLimits } from './message-broker.js'
import { MemoryMessageBroker } from './memory/message-broker.js'
import { MemoryKeyValueStore } from './memory/kv-store.js'
import { MemoryAgentStore, type MemoryAgentStoreOptions } from './memory/agent-store.js'
import type { KeyValueStore } from './kv-store.js'
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
  readonly kv: KeyValueStore
  /** What its peers say to each other, and where they are. */
  readonly broker: MessageBroker
}

export interface MemoryStorageOptions extends MemoryAgentStoreOptions {
  /** How much of what peers say is kept. */
  messaging?: { limits?: Partial<BrokerLimits> }
}

/** All of it in this process: nothing survives it. */
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
