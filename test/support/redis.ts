import { randomBytes } from 'node:crypto'
import { recordDigest } from '../../src/registry/replica.js'
import { RedisStorage, type RedisStorageOptions } from '../../src/storage/redis/storage.js'
import type { AgentRecord, Change, RegisterCommand, StoreListener, StoreSnapshot } from '../../src/storage/agent-store.js'
import type { AgentRegistryOptions } from '../../src/index.js'
import { build } from './harness.js'
import type { Pair } from './messaging.js'
import type { RedisServer } from './redis-server.js'

const file = randomBytes(6).toString('hex')
let namespaces = 0

/** A namespace that no other test of this run uses. */
export const newNamespace = () => `test-${file}-${namespaces++}`

/** Two registries that share a namespace, as those of two processes do. */
export function inTwoProcesses (server: RedisServer): Pair {
  return async (t, options = {}) => {
    const redis = { url: server.path, commandTimeoutMs: 10_000 }
    const shared: AgentRegistryOptions = { storage: 'redis', namespace: newNamespace(), redis, ...options }
    return [await build(t, shared), await build(t, shared)]
  }
}

/** State of a process that opened a storage, kept up to date by events only. */
export class Peer implements StoreListener {
  readonly storage: RedisStorage
  readonly namespace: string
  readonly changes: Change[] = []
  readonly reloads: StoreSnapshot[] = []
  readonly faults: Array<string | null> = []
  readonly errors: unknown[] = []
  readonly agents = new Map<string, AgentRecord>()
  epoch = ''
  n = 0

  constructor (server: RedisServer, options: Partial<RedisStorageOptions> & { namespace: string }) {
    this.namespace = options.namespace
    this.storage = new RedisStorage(
      { connection: { path: server.path }, leaseMs: 30_000, retentionMs: 30_000, onError: error => { this.errors.push(error) }, ...options }
    )
  }

  static async open (server: RedisServer, options: Partial<RedisStorageOptions> & { namespace: string }): Promise<Peer> {
    const peer = new Peer(server, options)
    peer.#load(await peer.storage.agents.open(peer))
    return peer
  }

  get store () { return this.storage.agents }
  get revision () { return `${this.epoch}:${this.n}` }
  /** The set of agent digests, equal where the state is equal. */
  get digest (): string {
    const parts = [...this.agents.values()].map(record => recordDigest(this.epoch, record))
    return `${this.revision} ${parts.reduce((sum, part) => (sum + part) % (1n << 64n), 0n)}`
  }

  changed (changes: readonly Change[]): void {
    for (const change of changes) {
      if (change.n !== this.n + 1) throw new Error(`${change.n} came after ${this.n}`)
      this.n = change.n
      this.changes.push(change)
      if (change.after) this.agents.set(change.id, change.after)
      else this.agents.delete(change.id)
    }
  }

  touched (records: readonly AgentRecord[]): void {
    for (const record of records) if (this.agents.get(record.id)?.revision === record.revision) this.agents.set(record.id, record)
  }

  reloaded (snapshot: StoreSnapshot): void {
    this.reloads.push(snapshot)
    this.#load(snapshot)
  }

  availability (fault: string | null): void {
    this.faults.push(fault)
  }

  async close (): Promise<void> {
    await this.storage.kv.close()
    await this.storage.agents.close()
  }

  #load ({ epoch, revision, agents }: StoreSnapshot) {
    this.epoch = epoch
    this.n = revision
    this.agents.clear()
    for (const record of agents) this.agents.set(record.id, record)
  }
}

export function registration (id: string, more: Partial<RegisterCommand> = {}): RegisterCommand {
  const content = { body: JSON.stringify({ agent_id: id, text: 'x' }), type: 'testing', capabilities: ['one'] }
  return { id, content, claim: { kind: 'owner' }, maxAgents: 1_000_000, ...more }
}
