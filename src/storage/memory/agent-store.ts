import { randomBytes } from 'node:crypto'
import { monotonicClock, type Clock } from '../../lib/clock.js'
import { Multiset } from '../../lib/multiset.js'
import type { AgentState } from '../../protocol/schemas/common.js'
import { applyMetrics } from '../agent-metrics.js'
import type {
  AgentRecord, AgentStore, ChangeEvent, Claim, Heartbeat, Outcome, RegisterCommand, RegisterOutcome, Rejection, RemoveCommand,
  ReportCommand, StateCommand, StoreListener, StoreSnapshot, UpdateCommand
} from '../agent-store.js'
import { LeaseQueue, SelfPreservation } from './leases.js'

export interface MemoryAgentStoreOptions {
  /** The length of a lease (ms). */
  leaseMs: number
  /** How long dead agents are kept (ms). */
  retentionMs: number
  /** Whether leases are held when implausibly many of them end at once (default true). */
  preservation?: boolean
  clock?: Clock
  /** The content of an earlier store, from which this one continues. */
  restored?: Restored
}

/** An agent and its deadline: the end of its lease or retention, or the start of its hold, by the clock of the store. */
export interface TimedRecord { readonly record: AgentRecord, readonly at: number }

interface Restored {
  readonly epoch: string
  readonly revision: number
  /** The highest incarnation that was ever assigned. */
  readonly incarnation: number
  readonly agents: readonly TimedRecord[]
}

export const newEpoch = (): string => randomBytes(6).toString('base64url')

const notFound: Rejection = { ok: false, reason: 'not-found' }
const stale: Rejection = { ok: false, reason: 'stale-incarnation' }
const notOwner: Rejection = { ok: false, reason: 'not-owner' }
const conflict: Rejection = { ok: false, reason: 'conflict' }

/** Whether a claim may register an id that `existing` occupies. */
function mayReplace (existing: AgentRecord, claim: Claim): boolean {
  if (claim.kind === 'owner' || claim.exclusive || existing.state === 'dead') return true
  return existing.state === 'suspect' && existing.ownerKey === claim.digest
}

function isStale (record: AgentRecord, { incarnation }: Heartbeat): boolean {
  return incarnation !== undefined && incarnation < record.incarnation
}

/** The state after a heartbeat. States that the agent asked for stay; suspicion and death end. */
function stateAfterHeartbeat (state: AgentState): AgentState {
  return isAnnounced(state) ? state : 'alive'
}

function heartbeatReason (before: AgentState): string {
  if (before === 'dead') return 'revived'
  return before === 'starting' ? 'first-sign' : 'resumed'
}

/** The state after a request for `wanted`. A lost connection does not change an agent that is away on purpose or dead. */
function stateAfterCommand (state: AgentState, wanted: StateCommand['state']): AgentState {
  if (wanted !== 'suspect') return wanted
  return state === 'alive' || state === 'starting' ? 'suspect' : state
}

/** Whether the agent announced its absence. The end of such a lease does not indicate a fault of the registry. */
function isAnnounced (state: AgentState): boolean {
  return state === 'draining' || state === 'maintenance'
}

/** Incarnations grow across all agents and restarts, so that a token of an earlier instance is always recognized. */
function nextIncarnation (last: number, now: number): number {
  return Math.max(last + 1, now)
}

/** Keeps agents in the memory of this process. */
export class MemoryAgentStore implements AgentStore {
  readonly now: Clock
  readonly #leaseMs: number
  readonly #retentionMs: number
  readonly #agents = new Map<string, AgentRecord>()
  readonly #perKey = new Multiset()
  readonly #leases = new LeaseQueue()
  /** Dead agents, by the end of their retention. */
  readonly #tombstones = new LeaseQueue()
  readonly #preservation: SelfPreservation
  readonly #epoch: string
  #listener: StoreListener | undefined
  #revision = 0
  #incarnation = 0

  constructor ({ leaseMs, retentionMs, preservation = true, clock = monotonicClock(), restored }: MemoryAgentStoreOptions) {
    this.now = clock
    this.#leaseMs = leaseMs
    this.#retentionMs = retentionMs
    this.#preservation = new SelfPreservation({ leaseMs, enabled: preservation })
    this.#epoch = restored?.epoch ?? newEpoch()
    if (restored) this.#restore(restored)
  }

  /** The number of the newest change. */
  get revision () { return this.#revision }

  /** The highest incarnation that was ever assigned. */
  get incarnation () { return this.#incarnation }

  /** An agent with its current deadline. */
  timed (id: string): TimedRecord | undefined {
    const record = this.#agents.get(id)
    const at = this.#leases.deadlineOf(id) ?? this.#tombstones.deadlineOf(id) ?? this.#preservation.heldSince(id)
    return record && at !== undefined ? { record, at } : undefined
  }

  async open (listener: StoreListener): Promise<StoreSnapshot> {
    this.#listener = listener
    return { epoch: this.#epoch, revision: this.#revision, agents: [...this.#agents.values()] }
  }

  async close (): Promise<void> {
    this.#listener = undefined
  }

  async register (command: RegisterCommand): Promise<RegisterOutcome> {
    const before = this.#agents.get(command.id) ?? null
    const reason = this.#rejectionOf(before, command)
    if (reason) return { ok: false, reason }
    const now = this.now()
    const ownerKey = command.claim.kind === 'key' ? command.claim.digest : before?.ownerKey ?? command.claim.digest ?? null
    this.#incarnation = nextIncarnation(this.#incarnation, now)
    const n = this.#revision + 1
    const record: AgentRecord = {
      id: command.id,
      ...command.content,
      ownerKey,
      registeredAt: before?.registeredAt ?? now,
      created: before?.created ?? n,
      incarnation: this.#incarnation,
      revision: n,
      state: 'starting',
      lastSeen: now,
      held: false,
      metrics: before?.metrics ?? null
    }
    this.#countKey(before?.ownerKey ?? null, -1)
    this.#countKey(ownerKey, 1)
    this.#renewLease(record.id, now)
    this.#commit('registered', before, record, before ? 'replaced' : 'created')
    return { ok: true, created: before === null, record }
  }

  /** Stores a record of another registry like a new registration, with a full lease or retention. */
  adopt (given: AgentRecord): void {
    const before = this.#agents.get(given.id) ?? null
    const n = this.#revision + 1
    const incarnation = Math.max(given.incarnation, before?.incarnation ?? 0)
    const record = { ...given, created: before?.created ?? n, incarnation, revision: n, held: false }
    this.#incarnation = Math.max(this.#incarnation, incarnation)
    this.#countKey(before?.ownerKey ?? null, -1)
    this.#countKey(record.ownerKey, 1)
    this.#renewLease(record.id, this.now())
    if (record.state === 'dead') this.#startRetention(record.id, this.now())
    this.#commit('registered', before, record, 'imported')
  }

  async update (command: UpdateCommand): Promise<Outcome> {
    const before = this.#agents.get(command.id)
    if (!before) return notFound
    if (before.revision !== command.revision) return conflict
    return this.#change('updated', before, command.content, 'patched')
  }

  async remove (command: RemoveCommand): Promise<Outcome> {
    const before = this.#agents.get(command.id)
    if (!before) return notFound
    if (isStale(before, command)) return stale
    if (command.ownerKey !== undefined && before.ownerKey !== command.ownerKey) return notOwner
    this.#delete(before, command.reason)
    return { ok: true, record: before }
  }

  async setState (command: StateCommand): Promise<Outcome> {
    const before = this.#agents.get(command.id)
    if (!before) return notFound
    if (isStale(before, command)) return stale
    const state = stateAfterCommand(before.state, command.state)
    const lastSeen = command.state === 'suspect' ? before.lastSeen : this.#heartbeat(before.id)
    if (state === before.state) return { ok: true, record: this.#touch(before, { lastSeen }) }
    return this.#change(state === 'alive' ? 'alive' : 'state', before, { state, lastSeen, held: false }, command.reason)
  }

  async renew (heartbeats: readonly Heartbeat[]): Promise<Outcome[]> {
    return heartbeats.map(heartbeat => this.#renew(heartbeat))
  }

  async report (command: ReportCommand): Promise<Outcome> {
    const outcome = this.#renew(command)
    if (!outcome.ok) return outcome
    const metrics = applyMetrics(outcome.record.metrics, command.update, outcome.record.lastSeen)
    return { ok: true, record: this.#touch(outcome.record, { metrics }) }
  }

  async expire ({ cleanup }: { cleanup: boolean }): Promise<number> {
    const now = this.now()
    return this.#endLeases(now) + this.#endHolds(now) + (cleanup ? this.#removeTombstones(now) : 0)
  }

  async release (): Promise<void> {
    this.#preservation.release()
  }

  async extend (ms: number): Promise<void> {
    this.#leases.shift(ms)
    this.#preservation.shift(ms)
  }

  #restore ({ revision, incarnation, agents }: Restored) {
    this.#revision = revision
    this.#incarnation = incarnation
    for (const { record, at } of agents.toSorted((a, b) => a.at - b.at)) {
      this.#agents.set(record.id, record)
      this.#countKey(record.ownerKey, 1)
      if (record.held) this.#preservation.hold(record.id, at)
      else if (record.state === 'dead') this.#tombstones.set(record.id, at)
      else this.#leases.set(record.id, at)
    }
  }

  #rejectionOf (before: AgentRecord | null, { claim, maxAgents }: RegisterCommand) {
    if (before && !mayReplace(before, claim)) return 'taken' as const
    if (!before && this.#agents.size >= maxAgents) return 'full' as const
    if (claim.kind !== 'key' || claim.maxAgents === undefined || before?.ownerKey === claim.digest) return null
    return this.#perKey.count(claim.digest) >= claim.maxAgents ? 'key-full' as const : null
  }

  #countKey (key: string | null, by: 1 | -1) {
    if (key === null) return
    if (by > 0) this.#perKey.add(key)
    else this.#perKey.delete(key)
  }

  #renew (heartbeat: Heartbeat): Outcome {
    const before = this.#agents.get(heartbeat.id)
    if (!before) return notFound
    if (isStale(before, heartbeat)) return stale
    const lastSeen = this.#heartbeat(heartbeat.id)
    const state = stateAfterHeartbeat(before.state)
    if (state === before.state && !before.held) return { ok: true, record: this.#touch(before, { lastSeen }) }
    return this.#change('alive', before, { state, lastSeen, held: false }, heartbeatReason(before.state))
  }

  /** Renews the lease of an agent. @returns the time of the heartbeat */
  #heartbeat (id: string): number {
    const now = this.now()
    this.#renewLease(id, now)
    return now
  }

  #renewLease (id: string, now: number) {
    this.#preservation.forget(id)
    this.#tombstones.delete(id)
    this.#leases.set(id, now + this.#leaseMs)
  }

  /** Replaces a record without a change: the listener is not called. */
  #touch (before: AgentRecord, to: Partial<AgentRecord>): AgentRecord {
    const record = { ...before, ...to }
    this.#agents.set(record.id, record)
    return record
  }

  #endLeases (now: number): number {
    const due = this.#records(this.#leases.due(now))
    const unannounced = due.filter(({ state }) => !isAnnounced(state)).length
    const held = this.#preservation.holds(now, unannounced, this.#fleet())
    for (const record of this.#unchanged(due)) {
      this.#leases.delete(record.id)
      if (held && !isAnnounced(record.state)) this.#hold(record, now)
      else this.#markDead(record, now, 'lease-expired')
    }
    return due.length
  }

  #endHolds (now: number): number {
    const due = this.#records(this.#preservation.due(now, this.#fleet()))
    for (const record of this.#unchanged(due)) this.#markDead(record, now, 'preservation-ended')
    return due.length
  }

  #records (ids: Iterable<string>): AgentRecord[] {
    const records: AgentRecord[] = []
    for (const id of ids) {
      const record = this.#agents.get(id)
      if (record) records.push(record)
    }
    return records
  }

  /** A listener that is notified of one record may renew or remove another one before its turn. */
  * #unchanged (records: readonly AgentRecord[]): Generator<AgentRecord> {
    for (const record of records) if (this.#agents.get(record.id) === record) yield record
  }

  #hold (record: AgentRecord, now: number) {
    this.#preservation.hold(record.id, now)
    this.#change('state', record, { state: 'suspect', held: true }, 'protected')
  }

  #markDead (record: AgentRecord, now: number, reason: string) {
    this.#startRetention(record.id, now)
    this.#change('dead', record, { state: 'dead', held: false }, reason)
  }

  #startRetention (id: string, now: number) {
    this.#leases.delete(id)
    this.#preservation.forget(id)
    this.#tombstones.set(id, now + this.#retentionMs)
  }

  #removeTombstones (now: number): number {
    let count = 0
    for (const id of this.#tombstones.due(now)) {
      const record = this.#agents.get(id)
      if (record) this.#delete(record, 'retention')
      count++
    }
    return count
  }

  #delete (before: AgentRecord, reason: string) {
    this.#leases.delete(before.id)
    this.#tombstones.delete(before.id)
    this.#preservation.forget(before.id)
    this.#countKey(before.ownerKey, -1)
    this.#agents.delete(before.id)
    this.#publish('unregistered', before.id, before, null, reason)
  }

  #change (event: ChangeEvent, before: AgentRecord, to: Partial<AgentRecord>, reason: string): Outcome {
    const record = { ...before, ...to, revision: this.#revision + 1 }
    this.#commit(event, before, record, reason)
    return { ok: true, record }
  }

  #commit (event: ChangeEvent, before: AgentRecord | null, after: AgentRecord, reason: string) {
    this.#agents.set(after.id, after)
    this.#publish(event, after.id, before, after, reason)
  }

  #publish (event: ChangeEvent, id: string, before: AgentRecord | null, after: AgentRecord | null, reason: string) {
    this.#revision++
    this.#listener?.changed([{ n: this.#revision, event, id, before, after, reason }])
  }

  /** The number of agents that are alive or held. */
  #fleet (): number {
    return this.#leases.size + this.#preservation.heldCount
  }
}
