import assert from 'node:assert/strict'
import type { Clock } from '../../lib/clock.js'
import type { KeyValueEntry, KeyValueKind, KeyValueStore } from '../kv-store.js'

/** What a store is to be made with: time as the suite lets it pass, for stores that can use a clock of the caller. */
export interface StateContractSettings { clock: Clock }

export interface StateContractStore {
  /** New, empty and not opened. */
  store: KeyValueStore
  /** Milliseconds since the epoch by the clock of the store; default: the clock it was made with. */
  now?: Clock
  /** Of a store that is shared: another one on the same entries, not opened. */
  another?: () => Promise<KeyValueStore>
  /** Of a persistent store: another one on the same entries, after the first was closed. */
  reopen?: () => Promise<KeyValueStore>
  /** Cleans up after all were closed. */
  close?: () => Promise<void>
}

/** A promise of the contract, and what of a store it can only be tried with. */
export type StateCase = readonly [name: string, run: (scene: StateScene) => Promise<unknown>, needs?: StateNeeds]
export interface StateNeeds { exact?: boolean, persistent?: boolean, shared?: boolean }

/** What one process holds: the store that it opened, and what it was told. */
export class StateSide {
  readonly store: KeyValueStore
  readonly told: KeyValueEntry[] = []
  opened: readonly KeyValueEntry[] = []

  constructor (store: KeyValueStore) {
    this.store = store
  }

  async open (): Promise<this> {
    this.opened = await this.store.open({
      changed: entry => { this.told.push(entry) },
      reloaded: assert.fail.bind(null, 'nothing was lost')
    })
    return this
  }

  /** Kind, key and value of what was told since the last call. */
  news (): string[] {
    return this.told.splice(0).map(({ kind, key, value }) => `${kind} ${key} ${value}`)
  }
}

/** An opened store and its time. */
export class StateScene {
  readonly #built: StateContractStore
  readonly #now: Clock
  readonly #sides: StateSide[] = []
  /** Lets time pass, in the store's own measure. */
  readonly pass: (ms: number) => Promise<unknown>
  side: StateSide

  constructor (built: StateContractStore, clock: Clock, pass: (ms: number) => Promise<unknown>) {
    this.#built = built
    this.#now = built.now ?? clock
    this.pass = pass
    this.side = new StateSide(built.store)
  }

  get store (): KeyValueStore { return this.side.store }

  async open (): Promise<void> {
    this.#sides.push(await this.side.open())
  }

  /** Another process on the same entries. */
  async another (): Promise<StateSide> {
    const side = await new StateSide(await this.#built.another!()).open()
    this.#sides.push(side)
    return side
  }

  async reopen (): Promise<readonly KeyValueEntry[]> {
    await this.store.close()
    this.side = new StateSide(await this.#built.reopen!())
    await this.open()
    return this.side.opened
  }

  async close (): Promise<void> {
    for (const { store } of this.#sides.reverse()) await store.close()
    await this.#built.close?.()
  }

  /** When it will be in `ms`, in whole milliseconds. */
  at (ms: number): number {
    return Math.floor(this.#now()) + ms
  }

  /** Puts an entry that ends in `ms`. */
  put (kind: KeyValueKind, key: string, value: string, { ms = 60_000, onlyIf, store = this.store }: { ms?: number, onlyIf?: string | null, store?: KeyValueStore } = {}): Promise<boolean> {
    return store.put({ kind, key, value, until: this.at(ms) }, onlyIf)
  }
}
