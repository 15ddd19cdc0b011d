import type { Clock } from '../../lib/clock.js'
import { MemoryAgentStore, newEpoch, type MemoryAgentStoreOptions, type TimedRecord } from '../memory/agent-store.js'
import type {
  AgentRecord, AgentStore, Change, Outcome, RegisterCommand, RegisterOutcome, RemoveCommand, ReportCommand, Heartbeat, StateCommand,
  StoreListener, StoreSnapshot, UpdateCommand
} from '../agent-store.js'
import { changesContent, changesKey, contentKey, contentOf, headKey, headOf, metaKey, storedChange, type Meta, type StoredHead } from './codec.js'
import type { Operation } from './database.js'
import { ignore, type Journal, type Writer } from './journal.js'
import type { ChangeBatch, Stored, StoredAgent } from './load.js'
import type { SharedDatabase } from './shared.js'

export interface LevelAgentStoreOptions extends Omit<MemoryAgentStoreOptions, 'restored' | 'clock'> {
  clock: Clock
  /** How many of the newest changes are kept. */
  changes: number
}

/** Signs of life that are written with one batch. */
const signsPerBatch = 1000

const remove = (key: string): Operation => ({ type: 'del', key })
const put = (key: string, value: object): Operation => ({ type: 'put', key, value: JSON.stringify(value) })

/** Shifts of leases and holds, and of graves: what all of them have gained since their times were written. */
type Shifts = Pick<Meta, 'leaseShift' | 'graveShift'>

const shiftOf = ({ record }: Pick<StoredAgent, 'record'>, { leaseShift, graveShift }: Shifts) => record.state === 'dead' ? graveShift : leaseShift

/**
 * Agents that outlive their process. All is decided in memory, and nothing of it is acknowledged or told before it is
 * written. Signs of life and reports are written once a second: a crash loses the last of them.
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
  /** Until when signs of life are written. */
  #alive = 0
  #signsDue: number | undefined
  readonly #touched = new Set<string>()
  /** What is decided, and what of it is being written. */
  #decided: Change[] = []
  #telling: Change[] = []
  #signs: string[] = []
  #cleaning: Operation[] = []
  /** How the changes are stored, oldest first. */
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
    const { epoch, revision, agents } = await this.#memory.open({ changed: changes => { this.#decided.push(...changes) }, touched: ignore, reloaded: ignore, availability: ignore })
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

  renew (signs: readonly Heartbeat[]): Promise<Outcome[]> {
    return this.#decide(() => this.#memory.renew(signs), signs)
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

  /** Takes over records from elsewhere, all or none of them. */
  async adopt (records: readonly AgentRecord[]): Promise<void> {
    await this.#decide(async () => { for (const record of records) this.#memory.adopt(record) })
  }

  async extend (ms: number): Promise<void> {
    // The time in which nothing could be written is given as a whole when that ends.
    if (this.#journal.isWritable) await this.#extend(ms)
  }

  collect (): Operation[] {
    this.#telling.push(...this.#decided.splice(0))
    this.#takeSigns()
    return [...this.#cleaning, ...this.#changeOperations(), ...this.#agentOperations(), put(metaKey, this.#meta())]
  }

  written (): void {
    const changes = this.#telling
    this.#telling = []
    this.#signs = []
    this.#cleaning = []
    this.#trim(changes)
    if (this.#touched.size > 0 && this.#signsDue !== undefined) this.#journal.write()
    if (changes.length > 0) this.#listener?.changed(changes)
  }

  tick (): void {
    this.#signsDue = this.now()
  }

  fault (reason: string | null, ms: number): void {
    if (reason === null) this.#extend(Math.ceil(ms))
    this.#listener?.availability(reason)
  }

  /** @param signs of whom this may be a sign of life */
  async #decide<T> (decide: () => Promise<T>, signs: readonly Heartbeat[] = []): Promise<T> {
    this.#journal.assertWritable()
    const outcome = decide()
    for (const { id } of signs) this.#touched.add(id)
    // Also what changes nothing may be the answer to a change that is not written yet.
    const written = this.#decided.length > 0 ? this.#journal.write() : this.#journal.settled()
    const [result] = await Promise.all([outcome, written])
    return result
  }

  async #extend (ms: number): Promise<void> {
    await this.#memory.extend(ms)
    this.#shifts = { ...this.#shifts, leaseShift: this.#shifts.leaseShift + ms }
  }

  /** @returns the changes that readers may go on from */
  #restore ({ meta, agents, changes, batches }: Stored): readonly Change[] {
    const now = this.now()
    const away = meta ? now - meta.alive : 0
    const continues = meta !== null && this.#shared.database.continues
    const kept = continues ? changes.slice(-this.#options.changes) : []
    this.#epoch = continues ? meta.epoch : newEpoch()
    this.#shifts = { leaseShift: (meta?.leaseShift ?? 0) + away, graveShift: (meta?.graveShift ?? 0) + away }
    this.#alive = now
    this.#batches = continues ? [...batches] : []
    this.#cleaning = continues ? [] : batches.map(({ first }) => remove(changesKey(first)))
    const restored = { epoch: this.#epoch, revision: meta?.revision ?? 0, incarnation: meta?.incarnation ?? 0, agents: agents.map(agent => this.#timed(agent, now)) }
    this.#memory = new MemoryAgentStore({ ...this.#options, restored })
    return kept
  }

  /** Nobody has more time left than from now on, whatever the clock did and however long leases were before. */
  #timed (agent: StoredAgent, now: number): TimedRecord {
    const { state, held } = agent.record
    const most = held ? now : now + (state === 'dead' ? this.#options.retentionMs : this.#options.leaseMs)
    const at = Math.min(most, agent.at + shiftOf(agent, this.#shifts))
    return { record: agent.record, at }
  }

  /** Signs of life a slice at a time; once there are no more, all until the last tick are written. */
  #takeSigns () {
    if (this.#signsDue === undefined) return
    for (const id of this.#touched) {
      if (this.#signs.length >= signsPerBatch) return
      this.#signs.push(id)
      this.#touched.delete(id)
    }
    this.#alive = this.#signsDue
    this.#signsDue = undefined
  }

  /** Under the number of the first: what is tried again, with more, takes the place of what may have been written. */
  #changeOperations (): Operation[] {
    const first = this.#telling[0]?.n
    return first === undefined ? [] : [put(changesKey(first), this.#telling.map(storedChange))]
  }

  /** Drops what is older than the newest changes that are kept, a batch at a time. */
  #trim (written: readonly Change[]) {
    if (written.length > 0) this.#batches.push({ first: written[0]!.n, count: written.length })
    const oldest = this.#memory.revision - this.#options.changes
    while (this.#batches[0] && this.#batches[0].first + this.#batches[0].count - 1 <= oldest) this.#cleaning.push(remove(changesKey(this.#batches.shift()!.first)))
  }

  /** Agents as they stand now: of those that changed, and of those that only showed life. */
  #agentOperations (): Operation[] {
    const ids = new Map(this.#signs.map(id => [id, false]))
    for (const change of this.#telling) ids.set(change.id, ids.get(change.id) || changesContent(change))
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
