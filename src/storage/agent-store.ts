import type { MetricsUpdate, StoredMetrics } from './agent-metrics.js'
import type { AgentState } from '../protocol/schemas/common.js'

/**
 * An agent as a store keeps it. Immutable: every change makes a new one, so that a snapshot may hold on to it.
 * Times are epoch milliseconds of the store's clock.
 */
export interface AgentRecord {
  readonly id: string
  /** The registration as JSON text of an object, its members in the order of `AgentRegistration`. */
  readonly body: string
  /** `agent_type` and `capabilities` of the body, by which agents are found. */
  readonly type: string
  readonly capabilities: readonly string[]
  /** What the public tier shows instead of `body`; null hides the agent there, undefined shows `body`. */
  readonly publicBody?: string | null
  /** `agent_type` and `capabilities` of `publicBody`: what is not shown cannot be asked for. */
  readonly publicFacets?: Facets
  /** Digest of the key that registered it; null when an admin or the host did. */
  readonly ownerKey: string | null
  readonly registeredAt: number
  /** Number of the change that first registered this id: the order of lists, the same everywhere. */
  readonly created: number
  readonly incarnation: number
  /** Number of the change that made this record, the `n` of its revision. */
  readonly revision: number
  readonly state: AgentState
  readonly lastSeen: number
  /** The lease is held by self-preservation. */
  readonly held: boolean
  /** What the agent has reported; null when nothing. Kept when it registers again. */
  readonly metrics: StoredMetrics | null
}

export type ChangeEvent = 'registered' | 'updated' | 'alive' | 'dead' | 'unregistered' | 'state'

/** One transition. `after` is null when the agent is gone, `before` when it is new. */
export interface Change {
  readonly n: number
  readonly event: ChangeEvent
  readonly id: string
  readonly before: AgentRecord | null
  readonly after: AgentRecord | null
  readonly reason: string
}

/** What became of an agent while nobody told of its changes one by one. */
export type Difference = Pick<Change, 'id' | 'before' | 'after'>

/** With what right an agent is registered. Decides what happens to an id that is registered already. */
export type Claim =
  | { readonly kind: 'owner', /** Key that owns the agent unless a record of it says otherwise. */ readonly digest?: string | null }
  | { readonly kind: 'key', readonly digest: string, readonly exclusive: boolean, readonly maxAgents?: number }

/** What agents are found by. */
export interface Facets { readonly type: string, readonly capabilities: readonly string[] }

/** The part of a record that its owner decides. */
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
  /** The revision that the new content was made from; another one refuses the update. */
  readonly revision: number
}

/** A sign of life; without an incarnation it counts for whichever is registered. */
export interface Heartbeat { readonly id: string, readonly incarnation?: number }

export interface StateCommand extends Heartbeat {
  readonly state: 'alive' | 'suspect' | 'draining' | 'maintenance'
  readonly reason: string
}

/** A report of metrics, which is a sign of life too. */
export interface ReportCommand extends Heartbeat {
  readonly update: MetricsUpdate
}

export interface RemoveCommand {
  readonly id: string
  readonly reason: string
  readonly incarnation?: number
  /** Digest of the key that must own the agent. */
  readonly ownerKey?: string
}

export type Rejection = { readonly ok: false, readonly reason: 'not-found' | 'stale-incarnation' | 'not-owner' | 'conflict' }
export type Outcome = { readonly ok: true, readonly record: AgentRecord } | Rejection

export interface StoreSnapshot {
  /** Changes whenever the numbers of changes are not known to continue. */
  readonly epoch: string
  readonly revision: number
  readonly agents: readonly AgentRecord[]
  /** The newest changes up to `revision`, oldest first and without a gap, as many as the store remembers. */
  readonly changes?: readonly Change[]
}

/** What a store tells the process that has opened it. None of these throws. */
export interface StoreListener {
  /** Changes made here and elsewhere, in the order of their numbers, each once. */
  changed (changes: readonly Change[]): void
  /** Newer records of the same revision: signs of life and reports that another process took in. */
  touched (records: readonly AgentRecord[]): void
  /** What was heard so far does not continue, because the store lost some of it or forgot what came between. */
  reloaded (snapshot: StoreSnapshot): void
  /** Why the store cannot be reached; null when it can again. A store that is always there never says. */
  availability (fault: string | null): void
}

/**
 * What the registry needs of a place where agents are kept. Every method is decided by the store, atomically, and
 * resolves after the change is as durable as this store promises. Changes made here and elsewhere reach the listener
 * in the order of their numbers, each once, and those of a call before that call resolves. A store that cannot be reached
 * throws `storage-unavailable`, and decides nothing: what was not acknowledged may or may not have happened.
 */
export interface AgentStore {
  /** @throws when the store cannot be used; the message says what to do. */
  open (listener: StoreListener): Promise<StoreSnapshot>
  close (): Promise<void>
  register (command: RegisterCommand): Promise<RegisterOutcome>
  /** What made a conflict has been told when this resolves. */
  update (command: UpdateCommand): Promise<Outcome>
  remove (command: RemoveCommand): Promise<Outcome>
  setState (command: StateCommand): Promise<Outcome>
  /** Renews leases; the outcomes are in the order of the signs. */
  renew (signs: readonly Heartbeat[]): Promise<Outcome[]>
  /** Applies a report to what the store holds at that moment, so that none is lost; not a change, nobody is told. */
  report (command: ReportCommand): Promise<Outcome>
  /** Takes leases that have ended and, with `cleanup`, removes what is past its retention. Resolves with how many. */
  expire (options: { cleanup: boolean }): Promise<number>
  /** Ends self-preservation now: what is held goes at the bounded rate. */
  release (): Promise<void>
  /** Gives every lease `ms` more: the time that the registry itself stood still. */
  extend (ms: number): Promise<void>
  /** Milliseconds since the epoch by the clock that leases are measured with. */
  now (): number
}
