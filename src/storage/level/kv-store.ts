import type { Clock } from '../../lib/clock.js'
import { MemoryKeyValueStore } from '../memory/kv-store.js'
import type { BucketSettings, KeyValueEntry, KeyValueKind, KeyValueListener, KeyValueStore } from '../kv-store.js'
import type { Operation } from './integrity.js'
import { ignore, type SharedDatabase, type Writer } from './journal.js'
import { entryKey } from './records.js'

const ticksPerSweep = 60

/** Keeps entries in LevelDB. Token buckets are not stored: they would refill anyway. */
export class LevelKeyValueStore implements KeyValueStore, Writer {
  readonly #shared: SharedDatabase
  readonly #clock: Clock
  #memory: MemoryKeyValueStore
  #listener: KeyValueListener | undefined
  /** The expiry of stored entries, by their key in the database. */
  readonly #stored = new Map<string, number>()
  /** By key, so that the last operation of a batch counts. */
  readonly #operations = new Map<string, Operation>()
  readonly #writing = new Map<string, Operation>()
  /** Events of the memory store, those that wait to be written, and those that are being written. */
  #events: KeyValueEntry[] = []
  #decided: KeyValueEntry[] = []
  #publishing: KeyValueEntry[] = []
  #ticks = 0

  constructor (shared: SharedDatabase, clock: Clock) {
    this.#shared = shared
    this.#clock = clock
    this.#memory = new MemoryKeyValueStore({ clock })
  }

  async open (listener: KeyValueListener): Promise<readonly KeyValueEntry[]> {
    const { entries } = await this.#shared.open()
    this.#memory = new MemoryKeyValueStore({ clock: this.#clock })
    for (const entry of entries) await this.#restore(entry)
    this.#listener = listener
    this.#shared.journal.add(this)
    return this.#memory.open({ changed: entry => { this.#events.push(entry) }, reloaded: ignore })
  }

  async close (): Promise<void> {
    if (!this.#listener) return
    await this.#shared.close()
    this.#listener = undefined
  }

  get (kind: KeyValueKind, key: string): Promise<string | undefined> {
    return this.#memory.get(kind, key)
  }

  async put (entry: KeyValueEntry & { value: string }, onlyIf?: string | null): Promise<boolean> {
    this.#shared.journal.assertWritable()
    const isPut = await this.#memory.put(entry, onlyIf)
    if (isPut) await this.#write(entry)
    return isPut
  }

  async take (kind: KeyValueKind, key: string): Promise<string | undefined> {
    this.#shared.journal.assertWritable()
    const value = await this.#memory.take(kind, key)
    if (value !== undefined) await this.#write({ kind, key, value: null, until: 0 })
    return value
  }

  list (kind: KeyValueKind): Promise<readonly KeyValueEntry[]> {
    return this.#memory.list(kind)
  }

  takeTokens (buckets: readonly string[], settings: BucketSettings): Promise<number | null> {
    return this.#memory.takeTokens(buckets, settings)
  }

  returnTokens (buckets: readonly string[], settings: BucketSettings): Promise<void> {
    return this.#memory.returnTokens(buckets, settings)
  }

  collect (): Operation[] {
    this.#publishing.push(...this.#decided.splice(0))
    for (const [at, operation] of this.#operations) this.#writing.set(at, operation)
    this.#operations.clear()
    return [...this.#writing.values()]
  }

  written (): void {
    const entries = this.#publishing
    this.#publishing = []
    this.#writing.clear()
    for (const entry of entries) this.#listener?.changed(entry)
  }

  tick (): void {
    if (++this.#ticks % ticksPerSweep === 0) this.#sweep()
  }

  async #restore (entry: KeyValueEntry & { value: string }): Promise<void> {
    await this.#memory.put(entry)
    this.#stored.set(entryKey(entry.kind, entry.key), entry.until)
  }

  /** Publishes the event of an entry with its own operation, not with an earlier batch. */
  #write (entry: KeyValueEntry): Promise<void> {
    const index = this.#events.findIndex(({ kind, key }) => kind === entry.kind && key === entry.key)
    if (index >= 0) this.#decided.push(...this.#events.splice(index, 1))
    this.#keep(entryKey(entry.kind, entry.key), entry)
    return this.#shared.journal.write()
  }

  #keep (at: string, { value, until }: Pick<KeyValueEntry, 'value' | 'until'>) {
    const ended = value === null || until <= this.#clock()
    if (ended) this.#stored.delete(at)
    else this.#stored.set(at, until)
    const operation: Operation = ended ? { type: 'del', key: at } : { type: 'put', key: at, value: JSON.stringify({ value, until }) }
    this.#operations.set(at, operation)
  }

  /** Entries expire in memory by themselves, but not in the database. */
  #sweep () {
    for (const [at, until] of this.#stored) if (until <= this.#clock()) this.#keep(at, { value: null, until })
  }
}
