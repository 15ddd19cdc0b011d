import type { TSchema, Static } from '@sinclair/typebox'
import type { KeyValueEntry, KeyValueKind } from '../kv-store.js'
import type { AgentRecord, Change, RecordContent } from '../agent-store.js'
import { Content, Meta, metaKey, parseStored, StoredChanges, StoredEntry, StoredHead, type Head, type StoredChange } from './codec.js'
import type { LevelDatabase } from './database.js'
import { damaged } from './refusal.js'

/** A record and its time without shifts, as stored. */
export interface StoredAgent { readonly record: AgentRecord, readonly at: number }

/** Changes that are stored under one key. */
export interface ChangeBatch { readonly first: number, readonly count: number }

/** All that a store holds. `meta` is null in a new one. */
export interface Stored {
  readonly meta: Meta | null
  readonly agents: readonly StoredAgent[]
  /** The newest, oldest first, up to the revision of `meta`. */
  readonly changes: readonly Change[]
  /** How the changes are stored. */
  readonly batches: readonly ChangeBatch[]
  readonly entries: ReadonlyArray<KeyValueEntry & { value: string }>
}

class Loader {
  readonly #folder: string
  readonly #heads = new Map<string, StoredHead>()
  readonly #contents = new Map<string, RecordContent>()
  readonly #changes: Array<StoredChange & { n: number }> = []
  readonly #batches: ChangeBatch[] = []
  readonly #entries: Array<KeyValueEntry & { value: string }> = []
  #meta: Meta | null = null

  constructor (folder: string) {
    this.#folder = folder
  }

  take (key: string, value: string): void {
    const [kind, ...rest] = key.split('!')
    const id = rest.join('!')
    if (key === metaKey) this.#meta = this.#parse(Meta, key, value)
    else if (kind === 'agent') this.#heads.set(id, this.#parse(StoredHead, key, value))
    else if (kind === 'content') this.#contents.set(id, this.#parse(Content, key, value))
    else if (kind === 'changes') this.#takeChanges(Number(id), this.#parse(StoredChanges, key, value))
    else if (kind === 'state') this.#takeEntry(rest, this.#parse(StoredEntry, key, value))
    else throw this.#damaged(key, 'is not of a registry')
  }

  finish (): Stored {
    if (!this.#meta && this.#heads.size + this.#contents.size + this.#changes.length > 0) throw this.#damaged(metaKey, 'is missing')
    return { meta: this.#meta, agents: this.#agents(), changes: this.#restoreChanges(), batches: this.#batches, entries: this.#entries }
  }

  #takeChanges (first: number, changes: readonly StoredChange[]) {
    this.#batches.push({ first, count: changes.length })
    for (const [index, change] of changes.entries()) this.#changes.push({ ...change, n: first + index })
  }

  #takeEntry ([kind, ...key]: string[], entry: StoredEntry) {
    this.#entries.push({ kind: kind as KeyValueKind, key: key.join('!'), ...entry })
  }

  #agents (): StoredAgent[] {
    for (const id of this.#contents.keys()) if (!this.#heads.has(id)) throw this.#damaged(`agent '${id}'`, 'is there by half')
    return Array.from(this.#heads, ([id, { at, ...head }]) => {
      if (head.revision > this.#meta!.revision) throw this.#damaged(`agent '${id}'`, 'is newer than the store')
      return { record: this.#record(id, head, this.#contents.get(id)), at }
    })
  }

  #record (id: string, head: Head, content: RecordContent | undefined): AgentRecord {
    if (!content) throw this.#damaged(`agent '${id}'`, 'is there by half')
    return { id, ...content, ...head }
  }

  /** From the newest to the oldest, because what an agent held before a change is stored with the change after it. */
  #restoreChanges (): Change[] {
    const contents = new Map(this.#contents)
    let n = this.#meta?.revision ?? 0
    return this.#changes.toReversed().map(stored => {
      if (stored.n !== n--) throw this.#damaged(`change ${n + 1}`, 'is missing')
      return this.#restoreChange(stored, contents)
    }).reverse()
  }

  #restoreChange ({ n, event, id, reason, before, after, content }: StoredChange & { n: number }, contents: Map<string, RecordContent>): Change {
    const now = contents.get(id)
    const then = content ?? now
    if (before && then) contents.set(id, then)
    else contents.delete(id)
    return { n, event, id, before: before && this.#record(id, before, then), after: after && this.#record(id, after, now), reason }
  }

  #parse<T extends TSchema> (schema: T, key: string, value: string): Static<T> {
    try {
      return parseStored(schema, value)
    } catch (error) {
      throw this.#damaged(`'${key}'`, `cannot be read (${(error as Error).message})`)
    }
  }

  #damaged (what: string, finding: string) {
    return damaged(this.#folder, `${what} ${finding}`)
  }
}

async function load (database: LevelDatabase): Promise<Stored> {
  const loader = new Loader(database.folder)
  for await (const page of database.pages()) for (const [key, value] of page) loader.take(key, value)
  return loader.finish()
}

/**
 * Opens a database and reads everything.
 * @throws a refusal, also for what does not belong together: it is not left out
 */
export async function openAndLoad (database: LevelDatabase): Promise<Stored> {
  await database.open()
  try {
    return await load(database)
  } catch (error) {
    await database.close({ clean: false })
    throw error
  }
}
