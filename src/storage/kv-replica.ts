import { Emitter } from '../lib/emitter.js'
import type { KeyValueEntry, KeyValueKind, KeyValueListener, KeyValueStore } from './kv-store.js'

/** The copy that this process keeps of the entries of one replicated kind. */
export interface KeyValueCopy {
  /** Called for an entry that is new, changed or unchanged. */
  put (entry: KeyValueEntry & { value: string }): void
  /** Called for a removed entry, which may not be in the copy. */
  removed (key: string): void
  /** The keys in the copy. */
  keys (): Iterable<string>
}

function hasValue (entry: KeyValueEntry): entry is KeyValueEntry & { value: string } {
  return entry.value !== null
}

/** A key-value store and the copies that this process keeps of its replicated kinds. */
export class KeyValueReplica implements KeyValueListener {
  readonly store: KeyValueStore
  readonly #copies = new Map<KeyValueKind, KeyValueCopy>()
  readonly #events = new Emitter<{ reloaded: [] }>()
  /** Entries of kinds that have no copy yet. */
  #pending: KeyValueEntry[] = []

  constructor (store: KeyValueStore) {
    this.store = store
  }

  async open (): Promise<void> {
    for (const entry of await this.store.open(this)) this.changed(entry)
  }

  close (): Promise<void> {
    return this.store.close()
  }

  /** Fills a copy with the current entries and keeps it up to date. */
  attach (kind: KeyValueKind, copy: KeyValueCopy): void {
    this.#copies.set(kind, copy)
    const entries = this.#pending.filter(entry => entry.kind === kind)
    this.#pending = this.#pending.filter(entry => entry.kind !== kind)
    for (const entry of entries) this.changed(entry)
  }

  /** Subscribes to complete reloads, after which events may have been lost. @returns an unsubscribe function */
  onReload (listener: () => void): () => void {
    return this.#events.on('reloaded', listener)
  }

  changed (entry: KeyValueEntry): void {
    const copy = this.#copies.get(entry.kind)
    if (!copy) this.#pending.push(entry)
    else if (hasValue(entry)) copy.put(entry)
    else copy.removed(entry.key)
  }

  reloaded (entries: readonly KeyValueEntry[]): void {
    this.#pending = []
    for (const [kind, copy] of this.#copies) {
      const kept = new Set(entries.filter(entry => entry.kind === kind).map(({ key }) => key))
      for (const key of [...copy.keys()]) if (!kept.has(key)) copy.removed(key)
    }
    for (const entry of entries) this.changed(entry)
    this.#events.emit('reloaded')
  }
}
