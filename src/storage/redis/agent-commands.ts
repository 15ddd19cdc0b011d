import { randomBytes } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import type { Clock } from '../../lib/clock.js'
import type { PublishedChange } from './agent-codec.js'
import type { Connections } from './connections.js'
import type { AgentScript } from './scripts.js'

interface LeaseSettings {
  leaseMs: number
  retentionMs: number
  preservation: boolean
  /** The minimum number of changes that the stream keeps. */
  changes: number
  /** Replaces the time of Redis in every call (for tests). */
  clock?: Clock
}

/** The newest change that a process knows. */
interface KnownChange { readonly epoch: string, readonly n: number, readonly mark: string }

type Column = ReadonlyArray<string | null>

/** A part of all agents, as parallel lists. */
export type AgentPage = readonly [ids: Column, heads: Column, contents: Column, seen: Column, reports: Column]

/** The results of the scripts that return one. */
interface ScriptResults {
  'set-state': number
  renew: number[]
  report: Array<number | string>
  expire: number
  page: AgentPage
}

type ResultOf<S extends AgentScript> = S extends keyof ScriptResults ? ScriptResults[S] : unknown

/** The reply of a script: the position of Redis after it, the changes it published, and its result. */
export interface Reply<T = unknown> {
  readonly epoch: string
  readonly revision: number
  /** By the clock that leases are measured with. */
  readonly now: number
  readonly published: readonly PublishedChange[]
  readonly status: string
  readonly result: T
}

type RawReply<T> = [epoch: string, revision: number, real: string, now: number, published: PublishedChange[], status: string, result: T]

/** A longer gap between two calls of `pulse` means that Redis or all processes stood still. */
const standstillMs = 2000
const never = Number.MAX_SAFE_INTEGER
/** Fractions distinguish calls in one millisecond of a test clock, like the microseconds of Redis. */
const ticksPerMs = 4096

const newEpoch = () => randomBytes(6).toString('base64url')

/** Runs the scripts on agents with the context that they need: the newest known change and the latest time to begin. */
export class AgentCommands {
  readonly process = randomBytes(6).toString('base64url')
  readonly #connections: Connections
  readonly #settings: LeaseSettings
  readonly #fixedArguments: readonly string[]
  #known: KnownChange = { epoch: '', n: 0, mark: '' }
  /** The name of a new epoch, if one begins with the next call. */
  #candidate = newEpoch()
  /** How far the clock of Redis is ahead of `performance.now()`; undefined before the first reply. */
  #offset: number | undefined
  #ticks = 0

  constructor (connections: Connections, settings: LeaseSettings) {
    const { leaseMs, retentionMs, preservation, changes, clock } = settings
    this.#connections = connections
    this.#settings = settings
    this.#fixedArguments = [leaseMs, retentionMs, preservation ? 1 : 0, changes, clock ? never : standstillMs, this.process].map(String)
  }

  /** Epoch milliseconds by the clock that leases are measured with. */
  now (): number {
    return Math.floor(this.#settings.clock?.() ?? this.redisTime() ?? Date.now())
  }

  /** The estimated time of Redis. */
  redisTime (): number | undefined {
    return this.#offset === undefined ? undefined : performance.now() + this.#offset
  }

  /** Compares Redis with `known` from now on: a Redis that knows less, or a different change, has lost writes. */
  follow (known: KnownChange): void {
    this.#known = known
  }

  /**
   * Runs a script. A script that would begin after its caller has timed out has no effect.
   * @throws when Redis does not reply in time, or rejects the call
   */
  async run<S extends AgentScript> (script: S, args: ReadonlyArray<string | number> = []): Promise<Reply<ResultOf<S>>> {
    return this.#read(await this.#run(script, this.latest(), args))
  }

  /** Runs the script `pulse`, without a time limit in Redis, and measures the clock of Redis. */
  async pulse (nonce: string): Promise<Reply> {
    const sent = performance.now()
    const reply = await this.#run('pulse', '', [nonce])
    this.#measureClock(Number(reply[2]), sent, performance.now())
    return this.#read(reply)
  }

  /** The latest time of Redis at which a script that is sent now may begin. */
  latest (): string {
    const time = this.redisTime()
    return time === undefined ? '' : (time + this.#connections.commandTimeoutMs).toFixed(3)
  }

  /** Redis read its clock between `sent` and `received`. The known offset changes only as far as this requires. */
  #measureClock (real: number, sent: number, received: number) {
    const offset = this.#offset ?? real - (sent + received) / 2
    this.#offset = Math.min(real - sent, Math.max(real - received, offset))
  }

  #context (latest: string): Array<string | number> {
    const { epoch, n, mark } = this.#known
    return [epoch, n, this.#candidate, latest, this.#clockText(), ...this.#fixedArguments, mark]
  }

  #clockText (): string {
    const { clock } = this.#settings
    return clock ? (clock() + (this.#ticks++ % ticksPerMs) / ticksPerMs).toFixed(5) : ''
  }

  async #run<S extends AgentScript> (script: S, latest: string, args: ReadonlyArray<string | number>) {
    return await this.#connections.run(script, 'meta', [...this.#context(latest), ...args]) as RawReply<ResultOf<S>>
  }

  #read<T> ([epoch, revision, , now, published, status, result]: RawReply<T>): Reply<T> {
    if (epoch === this.#candidate) this.#candidate = newEpoch()
    return { epoch, revision, now, published, status, result }
  }
}
