import { Cluster, Redis, type ClusterNode, type RedisOptions } from 'ioredis'
import { problem, type ProblemError } from '../../errors.js'
import { Emitter } from '../../lib/emitter.js'
import { Multiset } from '../../lib/multiset.js'
import type { KeyValueEntry } from '../kv-store.js'
import { scripts, type ScriptName } from './scripts.js'

type RedisClient = Redis | Cluster

/** How to connect: options of ioredis (host, port, path, sentinels, tls …), a URL, the nodes of a Cluster or a client. */
export interface RedisConnection extends RedisOptions {
  url?: string
  /** Some of the nodes; the others are discovered. */
  cluster?: ClusterNode[]
  /** A client of the host application. Its settings are copied; it is not used, changed or closed. */
  client?: RedisClient
}

/** The purpose of a connection. Blocking reads and subscriptions need their own: they delay everything behind them. */
export type LinkName = 'commands' | 'changes' | 'messages'

type Argument = string | number

/** The method that `defineCommand` adds to a client for a script. */
type ScriptCommand = (this: RedisClient, key: string, ...args: readonly Argument[]) => Promise<unknown>

const commandOf = (script: ScriptName) => `registry:${script}`

const maxRetryMs = 1000
/** A connection attempt at the start may take this many command timeouts. */
const startTimeouts = 3

function retryDelay (tries: number): number {
  return Math.min(maxRetryMs, 25 * 2 ** Math.min(tries, 10)) * (0.5 + Math.random() / 2)
}

/** Commands never wait for a connection and are never sent twice: a command that cannot be sent fails at once. */
function linkOptions (name: LinkName, timeoutMs: number) {
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

/** The master became a replica: a reconnect finds the new master. */
function isReadOnly (error: Error): boolean {
  return error.message.startsWith('READONLY')
}

/** The client may come from another copy of ioredis, so `instanceof` does not apply. */
function isCluster (client: RedisClient): client is Cluster {
  return client.isCluster
}

function createClient ({ url, cluster, client, ...rest }: RedisConnection, own: ReturnType<typeof linkOptions>): RedisClient {
  const clusterOptions = {
    lazyConnect: true,
    enableOfflineQueue: false,
    keyPrefix: '',
    clusterRetryStrategy: retryDelay,
    slotsRefreshTimeout: own.connectTimeout
  }
  if (client && isCluster(client)) return client.duplicate([], { ...clusterOptions, redisOptions: own })
  if (client) return client.duplicate(own)
  if (cluster) return new Cluster(cluster, { ...clusterOptions, redisOptions: { ...rest, ...own } })
  return url === undefined ? new Redis({ ...rest, ...own }) : new Redis(url, { ...rest, ...own })
}

/** Events of a connection that is used: it is ready, or it is lost for this reason. */
interface LinkEvents { up: [name: LinkName], down: [name: LinkName, fault: string] }

/** One connection, which reconnects by itself. */
export class Link {
  readonly name: LinkName
  readonly client: RedisClient
  readonly #timeoutMs: number
  #lastError = 'the connection was closed'

  constructor (name: LinkName, connection: RedisConnection, timeoutMs: number, events: Emitter<LinkEvents>) {
    this.name = name
    this.#timeoutMs = timeoutMs
    this.client = createClient(connection, linkOptions(name, timeoutMs))
    this.client.on('error', (error: Error) => { this.#lastError = error.message || error.name })
    this.client.on('ready', () => { events.emit('up', name) })
    this.client.on('close', () => { events.emit('down', name, this.#lastError) })
  }

  get isReady () { return this.client.status === 'ready' }

  /** A Cluster client retries without end: the attempt is limited to some command timeouts. */
  async connect (): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const timeout = new Promise<never>((_resolve, reject) => { timer = setTimeout(reject, startTimeouts * this.#timeoutMs) })
    try {
      await Promise.race([this.client.connect(), timeout])
    } catch {
      throw new Error(this.#lastError)
    } finally {
      clearTimeout(timer)
    }
  }

  /** Replaces the connection, even if it hangs. */
  reconnect (): void {
    if (this.isReady) this.client.disconnect(true)
  }

  close (): void {
    this.client.disconnect()
  }
}

/** A heartbeat that a process received: when, at which revision of the agent, and the metrics reported with it. */
export interface Touch { readonly id: string, readonly seen: number, readonly n: number, readonly metrics?: string }

/** The messages that the stores of all processes of a namespace receive. */
export type StoreMessage =
  | { readonly type: 'probe', readonly nonce: string }
  | { readonly type: 'touched', readonly from: string, readonly touches: readonly Touch[] }
  | { readonly type: 'state', readonly call: string, readonly entry: KeyValueEntry }

interface ConnectionsEvents extends LinkEvents {
  message: [message: StoreMessage]
  /** A message of another Redis channel. */
  channelMessage: [channel: string, text: string]
}

interface ConnectionsOptions {
  connection: RedisConnection
  namespace: string
  /** The time limit of a command (ms). */
  commandTimeoutMs: number
  /** How long the read of changes blocks (ms). */
  blockMs: number
}

/** The error of a call that Redis did not answer, as far as is known. */
export function unavailable (error: unknown): ProblemError {
  const detail = error instanceof Error ? error.message : String(error)
  return problem('storage-unavailable', `Redis cannot be reached: ${detail}`, { headers: { 'retry-after': '2' } })
}

/** The connections that the stores of a storage share: opened by the first store, closed by the last. */
export class Connections {
  /** The prefix of every key and channel. Its hash tag puts all keys of a namespace into one slot of a Cluster. */
  readonly base: string
  readonly blockMs: number
  readonly commandTimeoutMs: number
  readonly links: Readonly<Record<LinkName, Link>>
  readonly events = new Emitter<ConnectionsEvents>()
  readonly #channel: string
  #users = 0
  #isOpen = false
  #isCorked = false
  #opening: Promise<void> | undefined

  constructor ({ connection, namespace, commandTimeoutMs, blockMs }: ConnectionsOptions) {
    this.base = `{ar:${namespace}}:`
    this.#channel = `${this.base}messages`
    this.blockMs = blockMs
    this.commandTimeoutMs = commandTimeoutMs
    const linkEvents = new Emitter<LinkEvents>()
    linkEvents.on('up', name => { this.#up(name) })
    linkEvents.on('down', (name, fault) => { this.#down(name, fault) })
    const createLink = (name: LinkName, timeoutMs: number) => new Link(name, connection, timeoutMs, linkEvents)
    this.links = {
      commands: createLink('commands', commandTimeoutMs),
      changes: createLink('changes', commandTimeoutMs + blockMs),
      messages: createLink('messages', commandTimeoutMs)
    }
    for (const [name, lua] of scripts) this.links.commands.client.defineCommand(commandOf(name), { numberOfKeys: 1, lua })
    this.links.messages.client.on('message', (channel: string, text: string) => { this.#receive(channel, text) })
    this.links.messages.client.on('pmessage', (_glob: string, channel: string, text: string) => { this.#receive(channel, text) })
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

  async publish (message: StoreMessage): Promise<void> {
    await this.links.commands.client.publish(this.#channel, JSON.stringify(message))
  }

  /** Runs a script. `key` is the last word of a key of this namespace. */
  run (script: ScriptName, key: string, args: readonly Argument[]): Promise<unknown> {
    this.#cork()
    const { client } = this.links.commands
    const command: ScriptCommand = Reflect.get(client, commandOf(script))
    return command.call(client, this.base + key, ...args)
  }

  /** Sends the commands of one turn of the event loop in one write. */
  #cork () {
    const { client } = this.links.commands
    if (this.#isCorked || isCluster(client) || !client.stream) return
    const { stream } = client
    this.#isCorked = true
    stream.cork()
    setImmediate(() => {
      this.#isCorked = false
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
      const reason = error instanceof Error ? error.message : String(error)
      throw new Error(`Redis cannot be reached: ${reason}. Start it, or correct its address`, { cause: error })
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

  #receive (channel: string, text: string) {
    if (channel === this.#channel) this.events.emit('message', JSON.parse(text) as StoreMessage)
    else this.events.emit('channelMessage', channel, text)
  }

  /** A new connection has no subscriptions. */
  async #up (name: LinkName): Promise<void> {
    if (!this.#isOpen) return
    // After a failure the next probe is not received, and the connection is replaced.
    if (name === 'messages') await Promise.allSettled([this.#subscribe()])
    this.events.emit('up', name)
  }

  #down (name: LinkName, fault: string) {
    if (this.#isOpen) this.events.emit('down', name, fault)
  }
}

type SubscriptionCommands = readonly [join: 'subscribe' | 'psubscribe', leave: 'unsubscribe' | 'punsubscribe']

const namesPerCommand = 500

function * chunksOf (names: readonly string[]): Generator<readonly string[]> {
  for (let first = 0; first < names.length; first += namesPerCommand) yield names.slice(first, first + namesPerCommand)
}

/** Reference-counted subscriptions to Redis channels or globs. Changes of one tick share a command. */
export class Subscriptions {
  readonly #link: Link
  readonly #commands: SubscriptionCommands
  readonly #counts = new Multiset()
  #changed = new Set<string>()
  #flushing: Promise<void> | undefined

  constructor (link: Link, commands: SubscriptionCommands) {
    this.#link = link
    this.#commands = commands
  }

  get size () { return this.#counts.size }

  has (name: string): boolean {
    return this.#counts.has(name)
  }

  /** Resolves when messages are received. A rejected call is counted too. */
  join (name: string): Promise<void> {
    this.#counts.add(name)
    return this.#change(name)
  }

  leave (name: string): void {
    if (this.#counts.delete(name) === 0) this.#change(name)
  }

  /** Repeats all subscriptions on a new connection. */
  async renew (): Promise<void> {
    await this.#subscribe([...this.#counts.keys()])
  }

  clear (): void {
    const names = [...this.#counts.keys()]
    this.#counts.clear()
    this.#unsubscribe(names)
  }

  #change (name: string): Promise<void> {
    this.#changed.add(name)
    this.#flushing ??= new Promise((resolve, reject) => { setImmediate(() => { this.#flush().then(resolve, reject) }) })
    return this.#flushing
  }

  async #flush (): Promise<void> {
    const changed = [...this.#changed]
    this.#changed = new Set()
    this.#flushing = undefined
    this.#unsubscribe(changed.filter(name => !this.has(name)))
    await this.#subscribe(changed.filter(name => this.has(name)))
  }

  #unsubscribe (names: readonly string[]) {
    // Without a connection there are no subscriptions to end.
    for (const chunk of chunksOf(names)) Promise.allSettled([this.#link.client[this.#commands[1]](...chunk)])
  }

  async #subscribe (names: readonly string[]): Promise<void> {
    try {
      await Promise.all(Array.from(chunksOf(names), chunk => this.#link.client[this.#commands[0]](...chunk)))
    } catch (error) {
      throw unavailable(error)
    }
  }
}
