/**
 * Small facts beside the agents that the processes of a registry share and that end by themselves:
 * - `session`: sessions of admins; key: session id
 * - `revoked-token`, `revoked-agent`: what has ended before its time; key: token id, agent id
 * - `ticket`: keys to one socket; key: digest of the ticket
 * - `spent`: temporary tokens that have been used; key: token id
 * - `known`: pairs of address and account that have succeeded before; key: the pair
 * - `idempotency`: requests that run or have been answered; key: digest of who asked and the key that was given
 * - `sockets`: how many sockets a process has; key: a name that the process has for its run
 * - `secret`: what the processes have made once and share, until `forever`; key: what it is for
 */
export type KeyValueKind = 'session' | 'revoked-token' | 'revoked-agent' | 'ticket' | 'spent' | 'known' | 'idempotency' | 'sockets' | 'secret'

/** The `until` of what does not end: the last time that a Date can hold. */
export const forever = 8_640_000_000_000_000

/** Kinds that every process holds a copy of, because they are asked for with every request. */
export const replicatedKinds: ReadonlySet<KeyValueKind> = new Set(['session', 'revoked-token', 'revoked-agent', 'sockets'])

/** `value` is text that whoever put it understands; null when it has gone. `until` is in epoch milliseconds. */
export interface KeyValueEntry { readonly kind: KeyValueKind, readonly key: string, readonly value: string | null, readonly until: number }

export interface KeyValueListener {
  /** An entry of a replicated kind was put or removed, here or elsewhere; those of a call before that call resolves. */
  changed (entry: KeyValueEntry): void
  /** All entries of the replicated kinds, after a time in which some may not have been told. */
  reloaded (entries: readonly KeyValueEntry[]): void
}

/** How many tries there are at once, and in which time (ms) all of them come back. */
export interface BucketSettings { readonly burst: number, readonly windowMs: number }

/**
 * What the registry needs of a place for these facts. Every method is decided there, atomically, and what is past its
 * `until` is never returned. A place that cannot be reached throws `storage-unavailable`.
 */
export interface KeyValueStore {
  /** Nothing is told before this resolves. @returns the entries of the replicated kinds */
  open (listener: KeyValueListener): Promise<readonly KeyValueEntry[]>
  close (): Promise<void>
  get (kind: KeyValueKind, key: string): Promise<string | undefined>
  /**
   * What is past its `until` already is not put, and whatever was there has gone.
   * @param onlyIf the value that must be there now, null for none; undefined when it does not matter
   * @returns whether that condition held
   */
  put (entry: KeyValueEntry & { value: string }, onlyIf?: string | null): Promise<boolean>
  /** Removes an entry and returns what it was: of two at once only one gets it. */
  take (kind: KeyValueKind, key: string): Promise<string | undefined>
  /** Entries of a kind, in the order of their `until`. */
  list (kind: KeyValueKind): Promise<readonly KeyValueEntry[]>
  /**
   * Takes one token of each of these buckets, or none of any. A bucket holds `burst` tokens and gets them back evenly
   * within `windowMs`.
   * @returns null, or milliseconds until there is one in each
   */
  takeTokens (buckets: readonly string[], settings: BucketSettings): Promise<number | null>
  /** Puts back what `draw` took. */
  returnTokens (buckets: readonly string[], settings: BucketSettings): Promise<void>
}
