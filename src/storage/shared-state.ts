import type { KeyValueEntry, KeyValueKind, KeyValueListener, KeyValueStore } from './kv-store.js'

/** This process's copy of the entries of one replicated kind. */
export interface KeyValueCopy {
  /** An entry that is new or was changed, or one that is as it was. */
  put (entry: KeyValueEntry & { value: string }): void
  /** An entry that has gone; perhaps one that is not in the copy. */
  removed (key: string): void
  /** Which entries go when they are not among all there are. */
  keys (): Iterable<string>
}

function hasValue (entry: KeyValueEntry): entry is KeyValueEntry & { value: string } {
  return entry.value !== null
}

/** A store of shared facts, and the copies that this process keeps of what is replicated. */
export class KeyValueReplica implements KeyValueListener {
  readonly store: KeyValueStore
  readonly #copies = new Map<KeyValueKind, KeyValueCopy>()
  readonly #listeners = new Set<() => void>()
  /** What was told of kinds that nobody has a copy of yet. */
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

  /** Keeps a copy up to date from now on, beginning with what there is. */
  attach (kind: KeyValueKind, copy: KeyValueCopy): void {
    this.#copies.set(kind, copy)
    const entries = this.#pending.filter(entry => entry.kind === kind)
    this.#pending = this.#pending.filter(entry => entry.kind !== kind)
    for (const entry of entries) this.changed(entry)
  }

  /** Hears after everything had to be read anew, because some of it may have been lost. */
  onReload (listener: () => void): void {
    this.#listeners.add(listener)
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
    for (const listener of this.#listeners) listener()
  }
}
