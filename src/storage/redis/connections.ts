import { Cluster, Redis, type ClusterNode, type RedisOptions } from 'ioredis'
import { problem, type ProblemError } from '../../errors.js'
import { scripts } from './scripts/index.js'

export type RedisClient = Redis | Cluster

/** Where Redis is: options of ioredis (host, port, path, sentinels, tls …), a URL, the nodes of a Cluster or a client. */
export interface RedisConnection extends RedisOptions {
  url?: string
  /** Any of the nodes; the others are found. */
  cluster?: ClusterNode[]
  /** A client of the host: its settings are copied, it is neither used nor closed nor changed. */
  client?: RedisClient
}

/** What each connection is for: a read that blocks, and messages, would hold up everything behind them. */
export type LinkName = 'commands' | 'changes' | 'messages'

type Argument = string | number
type Scripted = Record<string, (...args: Argument[]) => Promise<unknown>>

const maxRetryMs = 1000
const startTimeouts = 3

function retryDelay (tries: number): number {
  return Math.min(maxRetryMs, 25 * 2 ** Math.min(tries, 10)) * (0.5 + Math.random() / 2)
}

/** Nothing waits for a connection and nothing is sent twice: what cannot be sent now fails now. */
function settings (name: LinkName, timeoutMs: number) {
  return {
    connectionName: `agent-registry-${name}`,
    lazyConnect: true,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    autoResubscribe: false,
    maxRetriesPerRequest: 0,
    commandTimeout: timeoutMs,
    connectTimeout: timeoutMs,
    disconnectTimeout: 100,
    keyPrefix: '',
    readOnly: false,
    enableAutoPipelining: false,
    retryStrategy: retryDelay,
    reconnectOnError: isReadOnly
  } satisfies RedisOptions
}

/** A master that has become a replica: the new one is elsewhere. */
function isReadOnly (error: Error): boolean {
  return error.message.startsWith('READONLY')
}

function makeClient ({ url, cluster, client, ...rest }: RedisConnection, own: ReturnType<typeof settings>): RedisClient {
  const clusterOptions = { lazyConnect: true, enableOfflineQueue: false, keyPrefix: '', clusterRetryStrategy: retryDelay, slotsRefreshTimeout: own.connectTimeout }
  if (client?.isCluster) return (client as Cluster).duplicate([], { ...clusterOptions, redisOptions: own })
  if (client) return (client as Redis).duplicate(own)
  if (cluster) return new Cluster(cluster, { ...clusterOptions, redisOptions: { ...rest, ...own } })
  return url === undefined ? new Redis({ ...rest, ...own }) : new Redis(url, { ...rest, ...own })
}

export interface LinkListener {
  up (name: LinkName): void
  down (name: LinkName, fault: string): void
}

/** One connection that comes back by itself. */
export class Link {
  readonly name: LinkName
  readonly client: RedisClient
  readonly #timeoutMs: number
  #lastError = 'the connection was closed'

  constructor (name: LinkName, connection: RedisConnection, timeoutMs: number, listener: LinkListener) {
    this.name = name
    this.#timeoutMs = timeoutMs
    this.client = makeClient(connection, settings(name, timeoutMs))
    this.client.on('error', (error: Error) => { this.#lastError = error.message || error.name })
    this.client.on('ready', () => { listener.up(name) })
    this.client.on('close', () => { listener.down(name, this.#lastError) })
  }

  get isReady () { return this.client.status === 'ready' }

  /** A Cluster tries for ever: it gets some times what a command may take. */
  async connect (): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_resolve, reject) => { timer = setTimeout(reject, startTimeouts * this.#timeoutMs) })
    try {
      await Promise.race([this.client.connect(), late])
    } catch {
      throw new Error(this.#lastError)
    } finally {
      clearTimeout(timer)
    }
  }

  /** Ends the connection, however stuck it is; another one is made. */
  cut (): void {
    if (this.isReady) this.client.disconnect(true)
  }

  close (): void {
    this.client.disconnect()
  }
}

export interface ConnectionsOptions {
  connection: RedisConnection
  namespace: string
  /** How long a command may take (ms). */
  commandTimeoutMs: number
  /** How long the read of changes blocks (ms). */
  blockMs: number
}

export type Message = { readonly type: string } & Readonly<Record<string, unknown>>

/** A write or read that Redis did not do, as far as we know. */
export function unavailable (error: unknown): ProblemError {
  const detail = error instanceof Error ? error.message : String(error)
  return problem('storage-unavailable', `Redis cannot be reached: ${detail}`, { headers: { 'retry-after': '2' } })
}

/** The connections of a storage, opened by the first of its stores and closed by the last. */
export class Connections {
  /** Begins the name of every key and channel; all of a namespace are in one slot of a Cluster. */
  readonly base: string
  readonly blockMs: number
  readonly commandTimeoutMs: number
  readonly links: Readonly<Record<LinkName, Link>>
  readonly #channel: string
  readonly #listeners = new Set<LinkListener>()
  readonly #readers = new Map<string, (message: Message) => void>()
  #hearer: ((channel: string, text: string) => void) | undefined
  #users = 0
  #isOpen = false
  #isGathering = false
  #opening: Promise<void> | undefined

  constructor ({ connection, namespace, commandTimeoutMs, blockMs }: ConnectionsOptions) {
    this.base = `{ar:${namespace}}:`
    this.#channel = `${this.base}messages`
    this.blockMs = blockMs
    this.commandTimeoutMs = commandTimeoutMs
    const listener = { up: (name: LinkName) => { this.#up(name) }, down: (name: LinkName, fault: string) => { this.#down(name, fault) } }
    const link = (name: LinkName, timeoutMs: number) => new Link(name, connection, timeoutMs, listener)
    this.links = { commands: link('commands', commandTimeoutMs), changes: link('changes', commandTimeoutMs + blockMs), messages: link('messages', commandTimeoutMs) }
    this.define(scripts)
    this.links.messages.client.on('message', (channel: string, text: string) => { this.#take(channel, text) })
    this.links.messages.client.on('pmessage', (_glob: string, channel: string, text: string) => { this.#take(channel, text) })
  }

  /** @throws when Redis cannot be reached */
  async open (): Promise<void> {
    this.#users++
    this.#opening ??= this.#open()
    await this.#opening
  }

  close (): void {
    if (this.#users > 0 && --this.#users === 0) this.#close()
  }

  /** Hears when connections come and go. */
  listen (listener: LinkListener): void {
    this.#listeners.add(listener)
  }

  unlisten (listener: LinkListener): void {
    this.#listeners.delete(listener)
  }

  /** @param scripts names and Lua; each takes one key */
  define (scripts: ReadonlyMap<string, string>): void {
    for (const [name, lua] of scripts) this.links.commands.client.defineCommand(`registry:${name}`, { numberOfKeys: 1, lua })
  }

  /** Who hears what comes over other channels of Redis. */
  hear (hearer: (channel: string, text: string) => void): void {
    this.#hearer = hearer
  }

  /** Who reads messages of a type. */
  read (type: string, reader: (message: Message) => void): void {
    this.#readers.set(type, reader)
  }

  async publish (message: Message): Promise<void> {
    await this.links.commands.client.publish(this.#channel, JSON.stringify(message))
  }

  /** Runs a script; `key` is the last word of a key of this namespace. */
  run (script: string, key: string, args: readonly Argument[]): Promise<unknown> {
    this.#gather()
    return (this.links.commands.client as unknown as Scripted)[`registry:${script}`]!(this.base + key, ...args)
  }

  /** What is sent in one turn of the event loop leaves in one write. */
  #gather () {
    const { client } = this.links.commands
    if (this.#isGathering || client.isCluster || !(client as Redis).stream) return
    const { stream } = client as Redis
    this.#isGathering = true
    stream.cork()
    setImmediate(() => {
      this.#isGathering = false
      stream.uncork()
    })
  }

  async #open (): Promise<void> {
    try {
      await Promise.all(Object.values(this.links).map(link => link.connect()))
      await this.#subscribe()
      this.#isOpen = true
    } catch (error) {
      this.#users = 0
      this.#close()
      throw new Error(`Redis cannot be reached: ${(error as Error).message}. Start it, or correct where it is looked for`, { cause: error })
    }
  }

  async #subscribe (): Promise<void> {
    await this.links.messages.client.subscribe(this.#channel)
  }

  #close () {
    this.#isOpen = false
    this.#opening = undefined
    for (const link of Object.values(this.links)) link.close()
  }

  #take (channel: string, text: string) {
    if (channel === this.#channel) this.#read(text)
    else this.#hearer?.(channel, text)
  }

  #read (text: string) {
    const message = JSON.parse(text) as Message
    this.#readers.get(message.type)?.(message)
  }

  /** Messages come again only when they are subscribed to again. */
  async #up (name: LinkName): Promise<void> {
    if (!this.#isOpen) return
    // Where that fails no probe comes through, and the connection is made anew.
    if (name === 'messages') await Promise.allSettled([this.#subscribe()])
    for (const listener of this.#listeners) listener.up(name)
  }

  #down (name: LinkName, fault: string) {
    if (!this.#isOpen) return
    for (const listener of this.#listeners) listener.down(name, fault)
  }
}
