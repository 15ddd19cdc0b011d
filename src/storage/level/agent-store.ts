import type { Clock } from '../../lib/clock.js'
import type {
  AgentRecord, AgentStore, Change, Heartbeat, Outcome, RegisterCommand, RegisterOutcome, RemoveCommand, ReportCommand, StateCommand,
  StoreListener, StoreSnapshot, UpdateCommand
} from '../agent-store.js'
import { MemoryAgentStore, newEpoch, type MemoryAgentStoreOptions, type TimedRecord } from '../memory/agent-store.js'
import type { Operation } from './integrity.js'
import { ignore, type Journal, type SharedDatabase, type Writer } from './journal.js'
import {
  changesContent, changesKey, contentKey, contentOf, headKey, headOf, metaKey, storedChange, type ChangeBatch, type Meta, type StoredAgent,
  type StoredHead, type StoredState
} from './records.js'

interface LevelAgentStoreOptions extends Omit<MemoryAgentStoreOptions, 'restored' | 'clock'> {
  clock: Clock
  /** The number of newest changes that are kept. */
  changes: number
}

const heartbeatsPerBatch = 1000

const remove = (key: string): Operation => ({ type: 'del', key })
const put = (key: string, value: object): Operation => ({ type: 'put', key, value: JSON.stringify(value) })

/** How far all leases and holds, and all retentions, were shifted since their times were written (ms). */
type Shifts = Pick<Meta, 'leaseShift' | 'graveShift'>

function shiftOf ({ record }: Pick<StoredAgent, 'record'>, { leaseShift, graveShift }: Shifts): number {
  return record.state === 'dead' ? graveShift : leaseShift
}

/**
 * Keeps agents in LevelDB. Calls are decided in memory, and acknowledged and published after they are written. Heartbeats
 * and reports are written once a second: a crash loses the newest ones.
 */
export class LevelAgentStore implements AgentStore, Writer {
  readonly now: Clock
  readonly #shared: SharedDatabase
  readonly #journal: Journal
  readonly #options: LevelAgentStoreOptions
  #memory: MemoryAgentStore
  #listener: StoreListener | undefined
  #epoch = ''
  #shifts: Shifts = { leaseShift: 0, graveShift: 0 }
  /** The time up to which heartbeats are written. */
  #alive = 0
  /** The time of the last tick, until the heartbeats before it are written. */
  #heartbeatsDue: number | undefined
  /** Agents with heartbeats that are not written yet. */
  readonly #touched = new Set<string>()
  #decided: Change[] = []
  /** The content of the batch that is being written. */
  #writing: Change[] = []
  #heartbeats: string[] = []
  #removals: Operation[] = []
  /** The stored changes, oldest first. */
  #batches: ChangeBatch[] = []

  constructor (shared: SharedDatabase, options: LevelAgentStoreOptions) {
    this.now = options.clock
    this.#shared = shared
    this.#journal = shared.journal
    this.#options = options
    this.#memory = new MemoryAgentStore(options)
  }

  async open (listener: StoreListener): Promise<StoreSnapshot> {
    const stored = await this.#shared.open()
    const changes = this.#restore(stored)
    this.#listener = listener
    const { epoch, revision, agents } = await this.#memory.open({
      changed: changes => { this.#decided.push(...changes) },
      touched: ignore,
      reloaded: ignore,
      availability: ignore
    })
    this.#journal.add(this)
    await this.#journal.write()
    return { epoch, revision, agents, changes }
  }

  async close (): Promise<void> {
    if (!this.#listener) return
    this.tick()
    await this.#shared.close()
    this.#listener = undefined
  }

  register (command: RegisterCommand): Promise<RegisterOutcome> {
    return this.#decide(() => this.#memory.register(command))
  }

  update (command: UpdateCommand): Promise<Outcome> {
    return this.#decide(() => this.#memory.update(command))
  }

  remove (command: RemoveCommand): Promise<Outcome> {
    return this.#decide(() => this.#memory.remove(command))
  }

  setState (command: StateCommand): Promise<Outcome> {
    return this.#decide(() => this.#memory.setState(command), [command])
  }

  renew (heartbeats: readonly Heartbeat[]): Promise<Outcome[]> {
    return this.#decide(() => this.#memory.renew(heartbeats), heartbeats)
  }

  report (command: ReportCommand): Promise<Outcome> {
    return this.#decide(() => this.#memory.report(command), [command])
  }

  expire (options: { cleanup: boolean }): Promise<number> {
    return this.#decide(() => this.#memory.expire(options))
  }

  release (): Promise<void> {
    return this.#decide(() => this.#memory.release())
  }

  /** Stores records of another registry, all or none of them. */
  async adopt (records: readonly AgentRecord[]): Promise<void> {
    await this.#decide(async () => { for (const record of records) this.#memory.adopt(record) })
  }

  async extend (ms: number): Promise<void> {
    // While writing fails, leases are extended by the whole time when it succeeds again.
    if (this.#journal.isWritable) await this.#extend(ms)
  }

  collect (): Operation[] {
    this.#writing.push(...this.#decided.splice(0))
    this.#takeHeartbeats()
    return [...this.#removals, ...this.#changeOperations(), ...this.#agentOperations(), put(metaKey, this.#meta())]
  }

  written (): void {
    const changes = this.#writing
    this.#writing = []
    this.#heartbeats = []
    this.#removals = []
    this.#trim(changes)
    if (this.#touched.size > 0 && this.#heartbeatsDue !== undefined) this.#journal.write()
    if (changes.length > 0) this.#listener?.changed(changes)
  }

  tick (): void {
    this.#heartbeatsDue = this.now()
  }

  fault (reason: string | null, ms: number): void {
    if (reason === null) this.#extend(Math.ceil(ms))
    this.#listener?.availability(reason)
  }

  /** @param heartbeats the agents of which this may be a heartbeat */
  async #decide<T> (decide: () => Promise<T>, heartbeats: readonly Heartbeat[] = []): Promise<T> {
    this.#journal.assertWritable()
    const outcome = decide()
    for (const { id } of heartbeats) this.#touched.add(id)
    // The outcome of a call without a change may depend on a change that is not written yet.
    const written = this.#decided.length > 0 ? this.#journal.write() : this.#journal.settled()
    const [result] = await Promise.all([outcome, written])
    return result
  }

  async #extend (ms: number): Promise<void> {
    await this.#memory.extend(ms)
    this.#shifts = { ...this.#shifts, leaseShift: this.#shifts.leaseShift + ms }
  }

  /** @returns the changes from which clients may resume */
  #restore ({ meta, agents, changes, batches }: StoredState): readonly Change[] {
    const now = this.now()
    const away = meta ? now - meta.alive : 0
    const continues = meta !== null && this.#shared.continues
    const kept = continues ? changes.slice(-this.#options.changes) : []
    this.#epoch = continues ? meta.epoch : newEpoch()
    this.#shifts = { leaseShift: (meta?.leaseShift ?? 0) + away, graveShift: (meta?.graveShift ?? 0) + away }
    this.#alive = now
    this.#batches = continues ? [...batches] : []
    this.#removals = continues ? [] : batches.map(({ first }) => remove(changesKey(first)))
    const { revision = 0, incarnation = 0 } = meta ?? {}
    const restored = { epoch: this.#epoch, revision, incarnation, agents: agents.map(agent => this.#timed(agent, now)) }
    this.#memory = new MemoryAgentStore({ ...this.#options, restored })
    return kept
  }

  /** No deadline is later than one that starts now, even if the clock was set back or leases were longer before. */
  #timed (agent: StoredAgent, now: number): TimedRecord {
    const { state, held } = agent.record
    const most = held ? now : now + (state === 'dead' ? this.#options.retentionMs : this.#options.leaseMs)
    const at = Math.min(most, agent.at + shiftOf(agent, this.#shifts))
    return { record: agent.record, at }
  }

  /** Takes a limited number of heartbeats. When none is left, all heartbeats before the last tick are written. */
  #takeHeartbeats () {
    if (this.#heartbeatsDue === undefined) return
    for (const id of this.#touched) {
      if (this.#heartbeats.length >= heartbeatsPerBatch) return
      this.#heartbeats.push(id)
      this.#touched.delete(id)
    }
    this.#alive = this.#heartbeatsDue
    this.#heartbeatsDue = undefined
  }

  /** The key has the first number: a repeated batch, which may have more changes, replaces one that was written. */
  #changeOperations (): Operation[] {
    const first = this.#writing[0]?.n
    return first === undefined ? [] : [put(changesKey(first), this.#writing.map(storedChange))]
  }

  /** Removes stored changes, batch by batch, beyond the number that is kept. */
  #trim ([first, ...more]: readonly Change[]) {
    if (first) this.#batches.push({ first: first.n, count: 1 + more.length })
    const oldest = this.#memory.revision - this.#options.changes
    for (let [batch] = this.#batches; batch && batch.first + batch.count - 1 <= oldest; [batch] = this.#batches) {
      this.#removals.push(remove(changesKey(batch.first)))
      this.#batches.shift()
    }
  }

  /** The current state of the agents that changed, and of those that only sent heartbeats. */
  #agentOperations (): Operation[] {
    const ids = new Map(this.#heartbeats.map(id => [id, false]))
    for (const change of this.#writing) ids.set(change.id, ids.get(change.id) || changesContent(change))
    return Array.from(ids, ([id, withContent]) => this.#operationsOf(id, withContent)).flat()
  }

  #operationsOf (id: string, withContent: boolean): Operation[] {
    const timed = this.#memory.timed(id)
    if (!timed) return [remove(headKey(id)), remove(contentKey(id))]
    const head: StoredHead = { ...headOf(timed.record), at: timed.at - shiftOf(timed, this.#shifts) }
    return withContent ? [put(headKey(id), head), put(contentKey(id), contentOf(timed.record))] : [put(headKey(id), head)]
  }

  #meta (): Meta {
    const { revision, incarnation } = this.#memory
    return { epoch: this.#epoch, revision, incarnation, alive: this.#alive, ...this.#shifts }
  }
}
