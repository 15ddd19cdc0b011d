import { Emitter } from '../lib/emitter.js'
import type { BucketSettings } from '../lib/token-bucket.js'

export type { BucketSettings }

/**
 * Kinds of entries. The key of an entry is:
 * - `session`: id of a session of an admin
 * - `revoked-token`, `revoked-agent`: id of the token or agent
 * - `ticket`: digest of a ticket, which opens one socket
 * - `spent`: id of a temporary token that was used
 * - `known`: pair of an address and an account that logged in successfully before
 * - `idempotency`: digest of the caller and the idempotency key of a request that runs or was answered
 * - `sockets`: name of a process; the value is the number of its sockets
 * - `secret`: purpose of a secret that the processes share
 */
export const keyValueKinds = [
  'session', 'revoked-token', 'revoked-agent', 'ticket', 'spent', 'known', 'idempotency', 'sockets', 'secret'
] as const
export type KeyValueKind = typeof keyValueKinds[number]

/** The `until` of entries that do not expire: the last time that a Date can hold. */
export const forever = 8_640_000_000_000_000

/** Kinds of which every process keeps a copy, because they are needed for every request. */
export const replicatedKinds: ReadonlySet<KeyValueKind> = new Set<KeyValueKind>(['session', 'revoked-token', 'revoked-agent', 'sockets'])

/** `value` is any text; null in an event for a removed entry. `until` is in epoch milliseconds. */
export interface KeyValueEntry { readonly kind: KeyValueKind, readonly key: string, readonly value: string | null, readonly until: number }

export interface KeyValueListener {
  /** An entry of a replicated kind was put or removed by any process. Events of a call come before it resolves. */
  changed (entry: KeyValueEntry): void
  /** All entries of the replicated kinds, after an outage in which events may have been lost. */
  reloaded (entries: readonly KeyValueEntry[]): void
}

/**
 * Entries with an expiry that the processes of a registry share, beside the agents: sessions, revocations, tickets,
 * secrets. Every method is atomic in the store. Expired entries are never returned. A store that cannot be reached
 * throws `storage-unavailable`.
 */
export interface KeyValueStore {
  /** The listener is not called before this resolves. @returns the entries of the replicated kinds */
  open (listener: KeyValueListener): Promise<readonly KeyValueEntry[]>
  close (): Promise<void>
  get (kind: KeyValueKind, key: string): Promise<string | undefined>
  /**
   * Puts an entry. With an `until` in the past it removes the entry instead.
   * @param onlyIf the value that must be present, null for none; undefined sets no condition
   * @returns whether the condition was met
   */
  put (entry: KeyValueEntry & { value: string }, onlyIf?: string | null): Promise<boolean>
  /** Removes an entry and returns its value. Of concurrent calls one receives it. */
  take (kind: KeyValueKind, key: string): Promise<string | undefined>
  /** The entries of a kind, in the order of their `until`. */
  list (kind: KeyValueKind): Promise<readonly KeyValueEntry[]>
  /**
   * Takes one token from each of these token buckets, or none from any.
   * @returns null, or the milliseconds until each bucket has a token
   */
  takeTokens (buckets: readonly string[], settings: BucketSettings): Promise<number | null>
  /** Returns tokens that `takeTokens` took. */
  returnTokens (buckets: readonly string[], settings: BucketSettings): Promise<void>
}

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
