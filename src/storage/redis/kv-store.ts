import { randomBytes } from 'node:crypto'
import { replicatedKinds, type BucketSettings, type KeyValueEntry, type KeyValueKind, type KeyValueListener, type KeyValueStore } from '../kv-store.js'
import type { Clock } from '../../lib/clock.js'
import { unavailable, type Connections, type LinkListener, type LinkName, type Message } from './connections.js'
import type { StateScript } from './scripts/index.js'

export interface RedisKeyValueStoreOptions {
  /** Until when a command that is sent now may begin, by the clock of Redis; '' for ever. */
  latest: () => string
  onError: (error: unknown) => void
  /** Of each call instead of the time of Redis; for tests. */
  clock?: Clock
}

/** How many entries of a kind are kept; over it those go that end first. */
const limits: Partial<Record<KeyValueKind, number>> = { ticket: 10_000, known: 1_000 }

/** Whether it was told, and what it came to. */
type Answer = [isTold: number, result: string | null]
type Listed = Array<[key: string, value: string, until: string]>

/**
 * Keeps shared facts in Redis. Changes of replicated kinds are told as messages, which come in the same order to every
 * process: a call waits for its own.
 */
export class RedisKeyValueStore implements KeyValueStore, LinkListener {
  readonly #connections: Connections
  readonly #options: RedisKeyValueStoreOptions
  readonly #process = randomBytes(6).toString('base64url')
  /** Calls that wait for their own message. */
  readonly #waiting = new Map<string, (isHeard: boolean) => void>()
  #listener: KeyValueListener | undefined
  #calls = 0

  constructor (connections: Connections, options: RedisKeyValueStoreOptions) {
    this.#connections = connections
    this.#options = options
    connections.read('state', message => { this.#hear(message) })
  }

  async open (listener: KeyValueListener): Promise<readonly KeyValueEntry[]> {
    await this.#connections.open()
    this.#connections.listen(this)
    const entries = await this.#replicated()
    this.#listener = listener
    return entries
  }

  async close (): Promise<void> {
    if (!this.#listener) return
    this.#listener = undefined
    this.#connections.unlisten(this)
    this.#connections.close()
  }

  async get (kind: KeyValueKind, key: string): Promise<string | undefined> {
    return await this.#ask('stateGet', [kind, key]) as string | null ?? undefined
  }

  async put ({ kind, key, value, until }: KeyValueEntry & { value: string }, onlyIf?: string | null): Promise<boolean> {
    const condition = onlyIf === undefined ? '' : onlyIf === null ? 'none' : 'is'
    const args = [kind, key, value, until, condition, onlyIf ?? '', limits[kind] ?? '', replicatedKinds.has(kind) ? 1 : 0]
    return await this.#tell('statePut', args, { kind, key, value, until }) !== 'refused'
  }

  async take (kind: KeyValueKind, key: string): Promise<string | undefined> {
    const args = [kind, key, replicatedKinds.has(kind) ? 1 : 0]
    return await this.#tell('stateTake', args, { kind, key, value: null, until: Date.now() }) as string | null ?? undefined
  }

  async list (kind: KeyValueKind): Promise<readonly KeyValueEntry[]> {
    return this.#list([kind])
  }

  async takeTokens (buckets: readonly string[], { burst, windowMs }: BucketSettings): Promise<number | null> {
    const wait = await this.#ask('bucketsDraw', [burst, windowMs, ...buckets]) as string | null
    return wait === null ? null : Number(wait)
  }

  async returnTokens (buckets: readonly string[], { burst, windowMs }: BucketSettings): Promise<void> {
    await this.#ask('bucketsGiveBack', [burst, windowMs, ...buckets])
  }

  up (name: LinkName): void {
    if (name === 'messages') this.#reload().catch(this.#options.onError)
  }

  /** Nobody knows what becomes of messages now: who waits for one goes on, and all is read anew. */
  down (name: LinkName): void {
    if (name === 'messages') for (const resolve of this.#waiting.values()) resolve(false)
  }

  async #reload (): Promise<void> {
    const entries = await this.#replicated()
    this.#listener?.reloaded(entries)
  }

  #replicated (): Promise<KeyValueEntry[]> {
    return this.#list([...replicatedKinds])
  }

  async #list (kinds: readonly KeyValueKind[]): Promise<KeyValueEntry[]> {
    const lists = await this.#ask('stateList', kinds) as Listed[]
    return lists.flatMap((list, index) => list.map(([key, value, until]) => ({ kind: kinds[index]!, key, value, until: Number(until) })))
  }

  async #ask (script: StateScript, args: ReadonlyArray<string | number>, call = ''): Promise<unknown> {
    try {
      return await this.#connections.run(script, 'state', [this.#options.latest(), this.#options.clock?.() ?? '', call, ...args])
    } catch (error) {
      throw unavailable(error)
    }
  }

  /** Runs what may change an entry, and waits until that has been told where it is of a replicated kind. */
  async #tell (script: StateScript, args: ReadonlyArray<string | number>, entry: KeyValueEntry): Promise<unknown> {
    if (!replicatedKinds.has(entry.kind)) return (await this.#ask(script, args) as Answer)[1]
    const call = `${this.#process}:${++this.#calls}`
    const told = new Promise<boolean>(resolve => { this.#waiting.set(call, resolve) })
    try {
      const [isTold, result] = await this.#ask(script, args, call) as Answer
      if (isTold === 1 && !await this.#heard(told)) this.#listener?.changed(result === 'gone' ? { ...entry, value: null } : entry)
      return result
    } finally {
      this.#waiting.delete(call)
    }
  }

  /** A message that does not come is half of an outage, which others notice. */
  async #heard (told: Promise<boolean>): Promise<boolean> {
    if (!this.#connections.links.messages.isReady) return false
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<boolean>(resolve => { timer = setTimeout(resolve, this.#connections.commandTimeoutMs, false) })
    const isHeard = await Promise.race([told, late])
    clearTimeout(timer)
    return isHeard
  }

  #hear ({ call, entry }: Message) {
    this.#listener?.changed(entry as KeyValueEntry)
    this.#waiting.get(call as string)?.(true)
  }
}
