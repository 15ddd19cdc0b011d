import { randomBytes } from 'node:crypto'
import { monotonicClock, type Clock } from '../../lib/clock.js'
import { applyMetrics } from '../agent-metrics.js'
import { LeaseQueue } from './lease-queue.js'
import { Preservation } from './preservation.js'
import { afterCommand, afterSign, isAnnounced, isStale, mayReplace, nextIncarnation, signReason } from './transitions.js'
import type {
  AgentRecord, AgentStore, ChangeEvent, Outcome, Rejection, RegisterCommand, RegisterOutcome, RemoveCommand, ReportCommand,
  Heartbeat, StateCommand, StoreListener, StoreSnapshot, UpdateCommand
} from '../agent-store.js'

export interface MemoryAgentStoreOptions {
  leaseMs: number
  retentionMs: number
  preservation?: boolean
  clock?: Clock
  /** Agents of an earlier life, to go on from. */
  restored?: Restored
}

/** An agent, and the end of its lease or retention, or the beginning of its hold, by the clock of the store. */
export interface TimedRecord { readonly record: AgentRecord, readonly at: number }

export interface Restored {
  readonly epoch: string
  readonly revision: number
  /** The highest that was ever given. */
  readonly incarnation: number
  readonly agents: readonly TimedRecord[]
}

export const newEpoch = (): string => randomBytes(6).toString('base64url')

const notFound: Rejection = { ok: false, reason: 'not-found' }
const stale: Rejection = { ok: false, reason: 'stale-incarnation' }
const notOwner: Rejection = { ok: false, reason: 'not-owner' }
const conflict: Rejection = { ok: false, reason: 'conflict' }

/** Keeps agents in this process; nothing survives it. */
export class MemoryAgentStore implements AgentStore {
  readonly now: Clock
  readonly #leaseMs: number
  readonly #retentionMs: number
  readonly #agents = new Map<string, AgentRecord>()
  readonly #perKey = new Map<string, number>()
  readonly #leases = new LeaseQueue()
  readonly #graves = new LeaseQueue()
  readonly #preservation: Preservation
  readonly #epoch: string
  #listener: StoreListener | undefined
  #revision = 0
  #incarnation = 0

  constructor ({ leaseMs, retentionMs, preservation = true, clock = monotonicClock(), restored }: MemoryAgentStoreOptions) {
    this.now = clock
    this.#leaseMs = leaseMs
    this.#retentionMs = retentionMs
    this.#preservation = new Preservation({ leaseMs, enabled: preservation })
    this.#epoch = restored?.epoch ?? newEpoch()
    if (restored) this.#restore(restored)
  }

  /** Number of the newest change. */
  get revision () { return this.#revision }

  /** The highest incarnation that was ever given. */
  get incarnation () { return this.#incarnation }

  /** An agent as it stands now. */
  timed (id: string): TimedRecord | undefined {
    const record = this.#agents.get(id)
    if (!record) return undefined
    return { record, at: (this.#leases.deadlineOf(id) ?? this.#graves.deadlineOf(id) ?? this.#preservation.heldSince(id))! }
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
    const refusal = this.#refusal(before, command)
    if (refusal) return { ok: false, reason: refusal }
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

  /** Takes over a record from elsewhere: as one that is newly registered, with a whole lease or retention. */
  adopt (given: AgentRecord): void {
    const before = this.#agents.get(given.id) ?? null
    const n = this.#revision + 1
    const incarnation = Math.max(given.incarnation, before?.incarnation ?? 0)
    const record = { ...given, created: before?.created ?? n, incarnation, revision: n, held: false }
    this.#incarnation = Math.max(this.#incarnation, incarnation)
    this.#countKey(before?.ownerKey ?? null, -1)
    this.#countKey(record.ownerKey, 1)
    this.#renewLease(record.id, this.now())
    if (record.state === 'dead') this.#lose(record.id, this.now())
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
    const state = afterCommand(before.state, command.state)
    const lastSeen = command.state === 'suspect' ? before.lastSeen : this.#sign(before.id)
    if (state === before.state) return { ok: true, record: this.#touch(before, { lastSeen }) }
    return this.#change(state === 'alive' ? 'alive' : 'state', before, { state, lastSeen, held: false }, command.reason)
  }

  async renew (signs: readonly Heartbeat[]): Promise<Outcome[]> {
    return signs.map(sign => this.#renew(sign))
  }

  async report (command: ReportCommand): Promise<Outcome> {
    const outcome = this.#renew(command)
    if (!outcome.ok) return outcome
    const metrics = applyMetrics(outcome.record.metrics, command.update, outcome.record.lastSeen)
    return { ok: true, record: this.#touch(outcome.record, { metrics }) }
  }

  async expire ({ cleanup }: { cleanup: boolean }): Promise<number> {
    const now = this.now()
    return this.#endLeases(now) + this.#endHolds(now) + (cleanup ? this.#cleanUp(now) : 0)
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
      else if (record.state === 'dead') this.#graves.set(record.id, at)
      else this.#leases.set(record.id, at)
    }
  }

  #refusal (before: AgentRecord | null, { claim, maxAgents }: RegisterCommand) {
    if (before && !mayReplace(before, claim)) return 'taken' as const
    if (!before && this.#agents.size >= maxAgents) return 'full' as const
    if (claim.kind !== 'key' || claim.maxAgents === undefined || before?.ownerKey === claim.digest) return null
    return (this.#perKey.get(claim.digest) ?? 0) >= claim.maxAgents ? 'key-full' as const : null
  }

  #countKey (key: string | null, by: number) {
    if (key === null) return
    const count = (this.#perKey.get(key) ?? 0) + by
    if (count > 0) this.#perKey.set(key, count)
    else this.#perKey.delete(key)
  }

  #renew (sign: Heartbeat): Outcome {
    const before = this.#agents.get(sign.id)
    if (!before) return notFound
    if (isStale(before, sign)) return stale
    const lastSeen = this.#sign(sign.id)
    const state = afterSign(before.state)
    if (state === before.state && !before.held) return { ok: true, record: this.#touch(before, { lastSeen }) }
    return this.#change('alive', before, { state, lastSeen, held: false }, signReason(before.state))
  }

  /** Renews the lease of an agent of which there was a sign of life, and says when that was. */
  #sign (id: string): number {
    const now = this.now()
    this.#renewLease(id, now)
    return now
  }

  #renewLease (id: string, now: number) {
    this.#preservation.forget(id)
    this.#graves.delete(id)
    this.#leases.set(id, now + this.#leaseMs)
  }

  /** Takes over what nobody is told of. */
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
      else this.#bury(record, now, 'lease-expired')
    }
    return due.length
  }

  #endHolds (now: number): number {
    const due = this.#records(this.#preservation.due(now, this.#fleet()))
    for (const record of this.#unchanged(due)) this.#bury(record, now, 'preservation-ended')
    return due.length
  }

  #records (ids: Iterable<string>): AgentRecord[] {
    return Array.from(ids, id => this.#agents.get(id)!)
  }

  /** What hears of one of these records may have renewed or removed another before its turn. */
  * #unchanged (records: readonly AgentRecord[]): Generator<AgentRecord> {
    for (const record of records) if (this.#agents.get(record.id) === record) yield record
  }

  #hold (record: AgentRecord, now: number) {
    this.#preservation.hold(record.id, now)
    this.#change('state', record, { state: 'suspect', held: true }, 'protected')
  }

  #bury (record: AgentRecord, now: number, reason: string) {
    this.#lose(record.id, now)
    this.#change('dead', record, { state: 'dead', held: false }, reason)
  }

  /** From now on an agent has its retention instead of a lease. */
  #lose (id: string, now: number) {
    this.#leases.delete(id)
    this.#preservation.forget(id)
    this.#graves.set(id, now + this.#retentionMs)
  }

  #cleanUp (now: number): number {
    let count = 0
    for (const id of this.#graves.due(now)) {
      this.#delete(this.#agents.get(id)!, 'retention')
      count++
    }
    return count
  }

  #delete (before: AgentRecord, reason: string) {
    this.#leases.delete(before.id)
    this.#graves.delete(before.id)
    this.#preservation.forget(before.id)
    this.#countKey(before.ownerKey, -1)
    this.#commit('unregistered', before, null, reason)
  }

  #change (event: ChangeEvent, before: AgentRecord, to: Partial<AgentRecord>, reason: string): Outcome {
    const record = { ...before, ...to, revision: this.#revision + 1 }
    this.#commit(event, before, record, reason)
    return { ok: true, record }
  }

  #commit (event: ChangeEvent, before: AgentRecord | null, after: AgentRecord | null, reason: string) {
    const id = (after ?? before)!.id
    if (after) this.#agents.set(id, after)
    else this.#agents.delete(id)
    this.#revision++
    this.#listener?.changed([{ n: this.#revision, event, id, before, after, reason }])
  }

  /** Agents alive or held: all that wait for a lease to end, or for their hold to. */
  #fleet (): number {
    return this.#leases.size + this.#preservation.heldCount
  }
}
