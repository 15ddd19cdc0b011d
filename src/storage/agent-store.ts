import type { MetricsUpdate, StoredMetrics } from './agent-metrics.js'
import type { AgentState } from '../protocol/schemas/common.js'

/**
 * An agent as a store keeps it. Records are immutable: every change creates a new one, so snapshots can share them.
 * Times are epoch milliseconds by the clock of the store.
 */
export interface AgentRecord {
  readonly id: string
  /** The registration: JSON text of an object, with its members in the order of `AgentRegistration`. */
  readonly body: string
  /** `agent_type` and `capabilities` of the body, which queries select by. */
  readonly type: string
  readonly capabilities: readonly string[]
  /** Replaces `body` on the public tier; null hides the agent there, undefined shows `body`. */
  readonly publicBody?: string | null
  /** `agent_type` and `capabilities` of `publicBody`: public queries must not select by hidden values. */
  readonly publicFacets?: Facets
  /** Digest of the key that registered the agent; null when an admin or the host did. */
  readonly ownerKey: string | null
  readonly registeredAt: number
  /** Number of the change that first registered this id. Lists are in this order in every process. */
  readonly created: number
  readonly incarnation: number
  /** Number of the change that created this record: the `n` of its revision. */
  readonly revision: number
  readonly state: AgentState
  readonly lastSeen: number
  /** Whether self-preservation holds the lease. */
  readonly held: boolean
  /** The reported metrics; null before the first report. A new registration of the agent keeps them. */
  readonly metrics: StoredMetrics | null
}

export type ChangeEvent = 'registered' | 'updated' | 'alive' | 'dead' | 'unregistered' | 'state'

/** One change of one agent. `before` is null for a new agent, `after` for a removed one. */
export interface Change {
  readonly n: number
  readonly event: ChangeEvent
  readonly id: string
  readonly before: AgentRecord | null
  readonly after: AgentRecord | null
  readonly reason: string
}

/** The difference between two states of an agent, for changes that were not delivered one by one. */
export type Difference = Pick<Change, 'id' | 'before' | 'after'>

/** The right by which an agent is registered. It decides whether an existing registration of the id is replaced. */
export type Claim =
  | { readonly kind: 'owner', /** The key that owns the agent if no existing record names another. */ readonly digest?: string | null }
  | { readonly kind: 'key', readonly digest: string, readonly exclusive: boolean, readonly maxAgents?: number }

/** The values that queries select by. */
export interface Facets { readonly type: string, readonly capabilities: readonly string[] }

/** The part of a record that its owner determines. */
export type RecordContent = Pick<AgentRecord, 'body' | 'type' | 'capabilities' | 'publicBody' | 'publicFacets'>

export interface RegisterCommand {
  readonly id: string
  readonly content: RecordContent
  readonly claim: Claim
  readonly maxAgents: number
}

export type RegisterOutcome =
  | { readonly ok: true, readonly created: boolean, readonly record: AgentRecord }
  | { readonly ok: false, readonly reason: 'taken' | 'full' | 'key-full' }

export interface UpdateCommand {
  readonly id: string
  readonly content: RecordContent
  /** The revision that the new content is based on. The update is rejected when the record has another one. */
  readonly revision: number
}

/** A heartbeat. Without an incarnation it counts for the current one. */
export interface Heartbeat { readonly id: string, readonly incarnation?: number }

export interface StateCommand extends Heartbeat {
  readonly state: 'alive' | 'suspect' | 'draining' | 'maintenance'
  readonly reason: string
}

/** A report of metrics, which is also a heartbeat. */
export interface ReportCommand extends Heartbeat {
  readonly update: MetricsUpdate
}

export interface RemoveCommand {
  readonly id: string
  readonly reason: string
  readonly incarnation?: number
  /** If present, the agent must be owned by the key with this digest. */
  readonly ownerKey?: string
}

export type Rejection = { readonly ok: false, readonly reason: 'not-found' | 'stale-incarnation' | 'not-owner' | 'conflict' }
export type Outcome = { readonly ok: true, readonly record: AgentRecord } | Rejection

export interface StoreSnapshot {
  /** Another epoch means that change numbers are not known to continue. */
  readonly epoch: string
  readonly revision: number
  readonly agents: readonly AgentRecord[]
  /** The newest changes up to `revision` that the store keeps, oldest first and without a gap. */
  readonly changes?: readonly Change[]
}

/** Events of a store. The methods must not throw. */
export interface StoreListener {
  /** Changes by this and other processes, in the order of their numbers, each once. */
  changed (changes: readonly Change[]): void
  /** Newer records of the same revision: heartbeats and reports that another process received. */
  touched (records: readonly AgentRecord[]): void
  /** Replaces everything received so far: the store lost writes, or no longer keeps the changes in between. */
  reloaded (snapshot: StoreSnapshot): void
  /** Called with the reason when the store cannot be reached, and with null when it can again. */
  availability (fault: string | null): void
}

/**
 * Keeps agents. Every method is atomic in the store and resolves when the change is as durable as the store promises.
 * The listener receives changes by all processes in the order of their numbers, each once, and those of a call before
 * the call resolves. A store that cannot be reached throws `storage-unavailable`; such a call may or may not have taken
 * effect.
 */
export interface AgentStore {
  /** @throws when the store cannot be used; the message names the remedy */
  open (listener: StoreListener): Promise<StoreSnapshot>
  close (): Promise<void>
  register (command: RegisterCommand): Promise<RegisterOutcome>
  /** After a `conflict` the listener has received the conflicting change before this resolves. */
  update (command: UpdateCommand): Promise<Outcome>
  remove (command: RemoveCommand): Promise<Outcome>
  setState (command: StateCommand): Promise<Outcome>
  /** Renews leases. The outcomes are in the order of the heartbeats. */
  renew (heartbeats: readonly Heartbeat[]): Promise<Outcome[]>
  /** Applies a report to the stored metrics atomically, so that no report is lost. A report is not a change. */
  report (command: ReportCommand): Promise<Outcome>
  /**
   * Marks agents dead whose lease has ended and, with `cleanup`, removes agents whose retention has ended.
   * @returns the number of affected agents
   */
  expire (options: { cleanup: boolean }): Promise<number>
  /** Ends self-preservation: held agents expire at the bounded rate. */
  release (): Promise<void>
  /** Extends every lease by the `ms` that the registry itself stood still. */
  extend (ms: number): Promise<void>
  /** Epoch milliseconds by the clock that leases are measured with. */
  now (): number
}
