import type { Clock } from '../../lib/clock.js'
import { MemoryState } from '../memory/kv-store.js'
import type { BucketSettings, StateEntry, StateKind, StateListener, StateStore } from '../kv-store.js'
import { entryKey } from './codec.js'
import type { Operation } from './database.js'
import { ignore, type Writer } from './journal.js'
import type { SharedDatabase } from './shared.js'

const ticksPerSweep = 60

/** Shared facts that outlive their process, except the buckets of tokens: those fill up by themselves. */
export class LevelState implements StateStore, Writer {
  readonly #shared: SharedDatabase
  readonly #clock: Clock
  #memory: MemoryState
  #listener: StateListener | undefined
  /** Ends of all that is on the disk, by its key there. */
  readonly #stored = new Map<string, number>()
  /** By key, so that of several in one batch the last counts. */
  readonly #operations = new Map<string, Operation>()
  readonly #writing = new Map<string, Operation>()
  /** What memory has told of, and what of it waits to be written, and is being written. */
  #heard: StateEntry[] = []
  #decided: StateEntry[] = []
  #telling: StateEntry[] = []
  #ticks = 0

  constructor (shared: SharedDatabase, clock: Clock) {
    this.#shared = shared
    this.#clock = clock
    this.#memory = new MemoryState({ clock })
  }

  async open (listener: StateListener): Promise<readonly StateEntry[]> {
    const { entries } = await this.#shared.open()
    this.#memory = new MemoryState({ clock: this.#clock })
    for (const entry of entries) await this.#restore(entry)
    this.#listener = listener
    this.#shared.journal.add(this)
    return this.#memory.open({ changed: entry => { this.#heard.push(entry) }, reloaded: ignore })
  }

  async close (): Promise<void> {
    if (!this.#listener) return
    await this.#shared.close()
    this.#listener = undefined
  }

  get (kind: StateKind, key: string): Promise<string | undefined> {
    return this.#memory.get(kind, key)
  }

  async put (entry: StateEntry & { value: string }, onlyIf?: string | null): Promise<boolean> {
    this.#shared.journal.assertWritable()
    const isPut = await this.#memory.put(entry, onlyIf)
    if (isPut) await this.#write(entry)
    return isPut
  }

  async take (kind: StateKind, key: string): Promise<string | undefined> {
    this.#shared.journal.assertWritable()
    const value = await this.#memory.take(kind, key)
    if (value !== undefined) await this.#write({ kind, key, value: null, until: 0 })
    return value
  }

  list (kind: StateKind): Promise<readonly StateEntry[]> {
    return this.#memory.list(kind)
  }

  draw (buckets: readonly string[], settings: BucketSettings): Promise<number | null> {
    return this.#memory.draw(buckets, settings)
  }

  giveBack (buckets: readonly string[], settings: BucketSettings): Promise<void> {
    return this.#memory.giveBack(buckets, settings)
  }

  collect (): Operation[] {
    this.#telling.push(...this.#decided.splice(0))
    for (const [at, operation] of this.#operations) this.#writing.set(at, operation)
    this.#operations.clear()
    return [...this.#writing.values()]
  }

  written (): void {
    const entries = this.#telling
    this.#telling = []
    this.#writing.clear()
    for (const entry of entries) this.#listener?.changed(entry)
  }

  tick (): void {
    if (++this.#ticks % ticksPerSweep === 0) this.#sweep()
  }

  async #restore (entry: StateEntry & { value: string }): Promise<void> {
    await this.#memory.put(entry)
    this.#stored.set(entryKey(entry.kind, entry.key), entry.until)
  }

  /** Tells of an entry together with its operation, never in a batch before. */
  #write (entry: StateEntry): Promise<void> {
    const index = this.#heard.findIndex(({ kind, key }) => kind === entry.kind && key === entry.key)
    if (index >= 0) this.#decided.push(...this.#heard.splice(index, 1))
    this.#keep(entryKey(entry.kind, entry.key), entry)
    return this.#shared.journal.write()
  }

  #keep (at: string, { value, until }: Pick<StateEntry, 'value' | 'until'>) {
    const ended = value === null || until <= this.#clock()
    if (ended) this.#stored.delete(at)
    else this.#stored.set(at, until)
    this.#operations.set(at, ended ? { type: 'del', key: at } : { type: 'put', key: at, value: JSON.stringify({ value, until }) })
  }

  /** What ends by itself does so in memory alone. */
  #sweep () {
    for (const [at, until] of this.#stored) if (until <= this.#clock()) this.#keep(at, { value: null, until })
  }
}
