import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Clock } from '../../lib/clock.js'
import type { AgentState } from '../../protocol/schemas/common.js'
import type {
  AgentRecord, AgentStore, Change, Claim, Outcome, RegisterCommand, RegisterOutcome, StateCommand, StoreSnapshot
} from '../agent-store.js'

/** The settings of the store that a test needs. */
export interface ContractSettings {
  leaseMs: number
  retentionMs: number
  /** Whether self-preservation is enabled. */
  preservation: boolean
  /** A clock that the suite advances, for stores that can measure leases with a given clock. */
  clock: Clock
}

export interface ContractStore {
  /** A new, empty store that is not open. */
  store: AgentStore
  /** For a persistent store: creates another one with the same agents, after the first was closed. */
  reopen?: () => Promise<AgentStore>
  /** Cleans up after the store was closed. */
  close?: () => Promise<void>
}

type AnyOutcome = Outcome | RegisterOutcome

/** A test of the contract, and the properties of a store that it needs. */
export type AgentCase = readonly [name: string, run: (scene: AgentScene) => Promise<unknown>, needs?: AgentNeeds]
export interface AgentNeeds { exact?: boolean, preservation?: boolean, persistent?: boolean }

export const owner: Claim = { kind: 'owner' }
export const range = (length: number) => Array.from({ length }, (_, index) => index)
export const contentOf = (text: string) => ({ body: JSON.stringify({ text }), type: 'testing', capabilities: ['one'] })

export function keyed (digest: string, more: { exclusive?: boolean, maxAgents?: number } = {}): Claim {
  return { kind: 'key', digest, exclusive: false, ...more }
}

export function recordOf (outcome: AnyOutcome | undefined): AgentRecord {
  assert.ok(outcome?.ok, `the outcome is ${JSON.stringify(outcome)}`)
  return outcome.record
}

export function assertRefused (outcome: AnyOutcome | undefined, reason: string) {
  assert.deepEqual(outcome, { ok: false, reason })
}

/** An open store, its changes and its time. */
export class AgentScene {
  store: AgentStore
  readonly #built: ContractStore
  readonly settings: ContractSettings
  /** Lets time pass, by the clock of the store. */
  readonly pass: (ms: number) => Promise<unknown>
  /** All changes that the listener has received. */
  readonly changes: Change[] = []
  /** The snapshot of the last open. */
  snapshot: StoreSnapshot | undefined
  /** Called with each change that the listener receives. */
  onChange: (change: Change) => void = () => {}
  #read = 0

  constructor (built: ContractStore, settings: ContractSettings, pass: (ms: number) => Promise<unknown>) {
    this.#built = built
    this.store = built.store
    this.settings = settings
    this.pass = pass
  }

  async open (): Promise<StoreSnapshot> {
    this.snapshot = await this.store.open({
      changed: changes => { for (const change of changes) this.#receive(change) },
      touched: assert.ok,
      // The store is available and loses nothing.
      reloaded: assert.ifError,
      availability: assert.ifError
    })
    return this.snapshot
  }

  #receive (change: Change) {
    this.changes.push(change)
    this.onChange(change)
  }

  async reopen (): Promise<StoreSnapshot> {
    await this.store.close()
    assert.ok(this.#built.reopen, 'a persistent store has reopen')
    this.store = await this.#built.reopen()
    return this.open()
  }

  async close (): Promise<void> {
    await this.store.close()
    await this.#built.close?.()
  }

  /** Event, id and reason of the changes since the last call. */
  newChanges (): string[] {
    const changes = this.changes.slice(this.#read)
    this.#read = this.changes.length
    return changes.map(({ event, id, reason }) => `${event} ${id} ${reason}`)
  }

  /** The number of changes with an event and a reason. */
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
    assert.ok(outcome)
    return outcome
  }

  setState (id: string, state: StateCommand['state'], incarnation?: number): Promise<Outcome> {
    return this.store.setState({ id, state, reason: 'asked', ...(incarnation !== undefined && { incarnation }) })
  }

  /** Registers an agent of `key-a` and brings it into a state. */
  async agent (id: string, state: AgentState = 'alive'): Promise<AgentRecord> {
    recordOf(await this.register(id))
    if (state !== 'starting') recordOf(await this.renew(id))
    if (state === 'dead') await this.endLeases()
    else if (state !== 'starting' && state !== 'alive') recordOf(await this.setState(id, state))
    this.newChanges()
    assert.equal(this.record(id).state, state)
    return this.record(id)
  }

  /** Lets every lease end. */
  async endLeases (): Promise<number> {
    await this.pass(this.settings.leaseMs)
    return this.store.expire({ cleanup: false })
  }

  /** Registers agents and brings them into the state alive. */
  async fleet (size: number, prefix = 'agent'): Promise<string[]> {
    const ids = range(size).map(index => `${prefix}-${index}`)
    for (const id of ids) await this.agent(id)
    return ids
  }

  /** Registers a fleet of which `lost` agents send no heartbeat for a lease. @returns the ids of those */
  async silence (size: number, lost: number): Promise<string[]> {
    const ids = await this.fleet(size)
    await this.pass(this.settings.leaseMs / 2)
    await this.store.renew(ids.slice(lost).map(id => ({ id })))
    await this.pass(this.settings.leaseMs / 2)
    await this.store.expire({ cleanup: false })
    return ids.slice(0, lost)
  }

  /** Sweeps ten times per second. @returns the number of dead agents after each second */
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

/** The time of a test: a clock that the suite advances, or the real time, for which it waits. */
export function testTime (isInjected: boolean): { clock: Clock, pass: (ms: number) => Promise<void> } {
  let now = Date.now()
  async function pass (ms: number) {
    if (isInjected) now += ms
    // Real stores are some milliseconds late.
    else await sleep(ms + 20)
  }
  return { clock: isInjected ? () => now : Date.now, pass }
}
