import { randomBytes } from 'node:crypto'
import type { Clock } from '../../lib/clock.js'
import {
  replicatedKinds, type BucketSettings, type KeyValueEntry, type KeyValueKind, type KeyValueListener, type KeyValueStore
} from '../kv-store.js'
import { unavailable, type Connections, type LinkName } from './connections.js'
import type { KeyValueScript } from './scripts.js'

interface RedisKeyValueStoreOptions {
  /** The latest time of Redis at which a script that is sent now may begin, or ''. */
  latest: () => string
  onError: (error: unknown) => void
  /** Replaces the time of Redis in every call (for tests). */
  clock?: Clock
}

/** The number of entries of a kind that are kept; those that expire first are dropped. */
const limits: Partial<Record<KeyValueKind, number>> = { ticket: 10_000, known: 1_000 }

/** Whether the change was published, and the result. */
type WriteReply = [isPublished: number, result: string | null]
type ListReply = Array<Array<[key: string, value: string, until: string]>>

function conditionOf (onlyIf: string | null | undefined): '' | 'none' | 'is' {
  if (onlyIf === undefined) return ''
  return onlyIf === null ? 'none' : 'is'
}

/**
 * Keeps entries in Redis. Changes of replicated kinds are published as messages, which every process receives in the same
 * order; a call waits for its own message.
 */
export class RedisKeyValueStore implements KeyValueStore {
  readonly #connections: Connections
  readonly #options: RedisKeyValueStoreOptions
  readonly #process = randomBytes(6).toString('base64url')
  /** Calls that wait for their own message. */
  readonly #waiting = new Map<string, (isReceived: boolean) => void>()
  #unsubscribe: Array<() => void> = []
  #listener: KeyValueListener | undefined
  #calls = 0

  constructor (connections: Connections, options: RedisKeyValueStoreOptions) {
    this.#connections = connections
    this.#options = options
    connections.events.on('message', message => { if (message.type === 'state') this.#receive(message.call, message.entry) })
  }

  async open (listener: KeyValueListener): Promise<readonly KeyValueEntry[]> {
    const { events } = this.#connections
    await this.#connections.open()
    this.#unsubscribe = [events.on('up', name => { this.#up(name) }), events.on('down', name => { this.#down(name) })]
    const entries = await this.#listReplicated()
    this.#listener = listener
    return entries
  }

  async close (): Promise<void> {
    if (!this.#listener) return
    this.#listener = undefined
    for (const unsubscribe of this.#unsubscribe) unsubscribe()
    this.#connections.close()
  }

  async get (kind: KeyValueKind, key: string): Promise<string | undefined> {
    return await this.#run<string | null>('kv-get', [kind, key]) ?? undefined
  }

  async put ({ kind, key, value, until }: KeyValueEntry & { value: string }, onlyIf?: string | null): Promise<boolean> {
    const isReplicated = replicatedKinds.has(kind) ? 1 : 0
    const args = [kind, key, value, until, conditionOf(onlyIf), onlyIf ?? '', limits[kind] ?? '', isReplicated]
    return await this.#write('kv-put', args, { kind, key, value, until }) !== 'refused'
  }

  async take (kind: KeyValueKind, key: string): Promise<string | undefined> {
    const args = [kind, key, replicatedKinds.has(kind) ? 1 : 0]
    return await this.#write('kv-take', args, { kind, key, value: null, until: Date.now() }) ?? undefined
  }

  async list (kind: KeyValueKind): Promise<readonly KeyValueEntry[]> {
    return this.#list([kind])
  }

  async takeTokens (buckets: readonly string[], { burst, windowMs }: BucketSettings): Promise<number | null> {
    const wait = await this.#run<string | null>('tokens-take', [burst, windowMs, ...buckets])
    return wait === null ? null : Number(wait)
  }

  async returnTokens (buckets: readonly string[], { burst, windowMs }: BucketSettings): Promise<void> {
    await this.#run('tokens-return', [burst, windowMs, ...buckets])
  }

  #up (name: LinkName) {
    if (name === 'messages') this.#reload().catch(this.#options.onError)
  }

  /** Messages may be lost now: calls stop waiting for theirs, and a reload follows. */
  #down (name: LinkName) {
    if (name === 'messages') for (const resolve of this.#waiting.values()) resolve(false)
  }

  async #reload (): Promise<void> {
    const entries = await this.#listReplicated()
    this.#listener?.reloaded(entries)
  }

  #listReplicated (): Promise<KeyValueEntry[]> {
    return this.#list([...replicatedKinds])
  }

  async #list (kinds: readonly KeyValueKind[]): Promise<KeyValueEntry[]> {
    const lists = await this.#run<ListReply>('kv-list', kinds)
    return kinds.flatMap((kind, index) => (lists[index] ?? []).map(([key, value, until]) => ({ kind, key, value, until: Number(until) })))
  }

  async #run<T> (script: KeyValueScript, args: ReadonlyArray<string | number>, call = ''): Promise<T> {
    try {
      const context = [this.#options.latest(), this.#options.clock?.() ?? '', call]
      return await this.#connections.run(script, 'state', [...context, ...args]) as T
    } catch (error) {
      throw unavailable(error)
    }
  }

  /** Runs a script that may change an entry. Waits for the message about a change of a replicated kind. */
  async #write (script: KeyValueScript, args: ReadonlyArray<string | number>, entry: KeyValueEntry): Promise<string | null> {
    if (!replicatedKinds.has(entry.kind)) {
      const [, result] = await this.#run<WriteReply>(script, args)
      return result
    }
    const call = `${this.#process}:${++this.#calls}`
    const message = new Promise<boolean>(resolve => { this.#waiting.set(call, resolve) })
    try {
      const [isPublished, result] = await this.#run<WriteReply>(script, args, call)
      if (isPublished === 1 && !await this.#isReceived(message)) {
        this.#listener?.changed(result === 'gone' ? { ...entry, value: null } : entry)
      }
      return result
    } finally {
      this.#waiting.delete(call)
    }
  }

  /** Waits for a message with a time limit. A message that does not arrive is part of an outage that the watchdog detects. */
  async #isReceived (message: Promise<boolean>): Promise<boolean> {
    if (!this.#connections.links.messages.isReady) return false
    let timer: NodeJS.Timeout | undefined
    const timeout = new Promise<boolean>(resolve => { timer = setTimeout(resolve, this.#connections.commandTimeoutMs, false) })
    const isReceived = await Promise.race([message, timeout])
    clearTimeout(timer)
    return isReceived
  }

  #receive (call: string, entry: KeyValueEntry) {
    this.#listener?.changed(entry)
    this.#waiting.get(call)?.(true)
  }
}
