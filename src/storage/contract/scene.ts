import assert from 'node:assert/strict'
import type { Clock } from '../../lib/clock.js'
import type { AgentState } from '../../protocol/schemas/common.js'
import type { AgentRecord, AgentStore, Change, Claim, Outcome, RegisterCommand, RegisterOutcome, StateCommand, StoreSnapshot } from '../agent-store.js'

/** What a store is to be made with. */
export interface ContractSettings {
  leaseMs: number
  retentionMs: number
  /** Whether self-preservation is on. */
  preservation: boolean
  /** Time as the suite lets it pass, for stores that can measure leases with a clock of the caller. */
  clock: Clock
}

export interface ContractStore {
  /** New, empty and not opened. */
  store: AgentStore
  /** Of a persistent store: another one on the same agents, after the first was closed. */
  reopen?: () => Promise<AgentStore>
  /** Cleans up after the store was closed. */
  close?: () => Promise<void>
}

type Result = Outcome | RegisterOutcome

/** A promise of the contract, and what of a store it can only be tried with. */
export type Case = readonly [name: string, run: (scene: Scene) => Promise<unknown>, needs?: Needs]
export interface Needs { exact?: boolean, preservation?: boolean, persistent?: boolean }

export const owner: Claim = { kind: 'owner' }
export const range = (length: number) => Array.from({ length }, (_, index) => index)
export const contentOf = (text: string) => ({ body: JSON.stringify({ text }), type: 'testing', capabilities: ['one'] })

export function keyed (digest: string, more: { exclusive?: boolean, maxAgents?: number } = {}): Claim {
  return { kind: 'key', digest, exclusive: false, ...more }
}

export function recordOf (outcome: Result | undefined): AgentRecord {
  assert.equal(outcome?.ok, true)
  return (outcome as { record: AgentRecord }).record
}

export function assertRefused (outcome: Result | undefined, reason: string) {
  assert.deepEqual(outcome, { ok: false, reason })
}

/** An opened store, its changes and its time. */
export class Scene {
  store: AgentStore
  readonly #built: ContractStore
  readonly settings: ContractSettings
  /** Lets time pass, in the store's own measure. */
  readonly pass: (ms: number) => Promise<unknown>
  /** Every change that the store told of. */
  readonly changes: Change[] = []
  /** What the store said when it was opened. */
  snapshot: StoreSnapshot | undefined
  /** Hears of each change as the store tells it. */
  onChange: (change: Change) => void = () => {}
  #seen = 0

  constructor (built: ContractStore, settings: ContractSettings, pass: (ms: number) => Promise<unknown>) {
    this.#built = built
    this.store = built.store
    this.settings = settings
    this.pass = pass
  }

  async open (): Promise<StoreSnapshot> {
    this.snapshot = await this.store.open({
      changed: changes => { for (const change of changes) this.#hear(change) },
      touched: assert.ok,
      // Nothing is lost, and the store is there.
      reloaded: assert.ifError,
      availability: assert.ifError
    })
    return this.snapshot
  }

  #hear (change: Change) {
    this.changes.push(change)
    this.onChange(change)
  }

  async reopen (): Promise<StoreSnapshot> {
    await this.store.close()
    this.store = await this.#built.reopen!()
    return this.open()
  }

  async close (): Promise<void> {
    await this.store.close()
    await this.#built.close?.()
  }

  /** Event, id and reason of the changes since the last call. */
  news (): string[] {
    const news = this.changes.slice(this.#seen)
    this.#seen = this.changes.length
    return news.map(({ event, id, reason }) => `${event} ${id} ${reason}`)
  }

  /** How many changes of this event there were. */
  count (event: string, reason?: string): number {
    return this.changes.filter(change => change.event === event && (reason ?? change.reason) === change.reason).length
  }

  record (id: string): AgentRecord {
    const record = this.changes.findLast(change => change.id === id)?.after
    assert.ok(record, `no agent '${id}'`)
    return record
  }

  register (id: string, more: Partial<RegisterCommand> = {}): Promise<RegisterOutcome> {
    return this.store.register({ id, content: contentOf('first'), claim: keyed('key-a'), maxAgents: 1000, ...more })
  }

  async renew (id: string, incarnation?: number): Promise<Outcome> {
    const [outcome] = await this.store.renew([{ id, ...(incarnation !== undefined && { incarnation }) }])
    return outcome!
  }

  setState (id: string, state: StateCommand['state'], incarnation?: number): Promise<Outcome> {
    return this.store.setState({ id, state, reason: 'asked', ...(incarnation !== undefined && { incarnation }) })
  }

  /** An agent of `key-a` in this state. */
  async agent (id: string, state: AgentState = 'alive'): Promise<AgentRecord> {
    recordOf(await this.register(id))
    if (state !== 'starting') recordOf(await this.renew(id))
    if (state === 'dead') await this.end()
    else if (state !== 'starting' && state !== 'alive') recordOf(await this.setState(id, state))
    this.news()
    assert.equal(this.record(id).state, state)
    return this.record(id)
  }

  /** Lets every lease end. */
  async end (): Promise<number> {
    await this.pass(this.settings.leaseMs)
    return this.store.expire({ cleanup: false })
  }

  /** That many agents, alive. */
  async fleet (size: number, prefix = 'agent'): Promise<string[]> {
    const ids = range(size).map(index => `${prefix}-${index}`)
    for (const id of ids) await this.agent(id)
    return ids
  }

  /** A fleet of which `lost` fall silent for a lease, the others do not. */
  async silence (size: number, lost: number): Promise<string[]> {
    const ids = await this.fleet(size)
    await this.pass(this.settings.leaseMs / 2)
    await this.store.renew(ids.slice(lost).map(id => ({ id })))
    await this.pass(this.settings.leaseMs / 2)
    await this.store.expire({ cleanup: false })
    return ids.slice(0, lost)
  }

  /** Sweeps ten times a second for that long. @returns how many were dead after each second */
  async sweep (seconds: number): Promise<number[]> {
    const dead = []
    for (const tenth of range(seconds * 10)) {
      await this.pass(100)
      await this.store.expire({ cleanup: false })
      if (tenth % 10 === 9) dead.push(this.count('dead'))
    }
    return dead
  }
}
