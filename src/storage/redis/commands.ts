import { randomBytes } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import type { Clock } from '../../lib/clock.js'
import type { Connections } from './connections.js'
import type { Told } from './records.js'
import type { AgentScript } from './scripts/index.js'

export interface LeaseSettings {
  leaseMs: number
  retentionMs: number
  preservation: boolean
  /** How many changes the stream keeps, at least. */
  changes: number
  /** Of each call instead of the time of Redis; for tests. */
  clock?: Clock
}

/** The newest change that a process knows. */
export interface Known { readonly epoch: string, readonly n: number, readonly mark: string }

/** What a script answers: where Redis stands after it, what it has told, and a result of its own. */
export interface Reply {
  readonly epoch: string
  readonly revision: number
  /** By the clock that leases are measured with. */
  readonly now: number
  readonly told: readonly Told[]
  readonly status: string
  readonly extra: unknown
}

type RawReply = [epoch: string, revision: number, real: string, now: number, told: Told[], status: string, extra: unknown]

/** A longer gap between two looks at Redis means that it, or all who look, stood still. */
const standstillMs = 2000
const never = Number.MAX_SAFE_INTEGER
/** Fractions tell the calls of one millisecond of the tests' clock apart, as microseconds do in Redis. */
const ticksPerMs = 4096

/** Runs scripts on agents, and keeps what they need to know of this process: what it knows, and until when it waits. */
export class Commands {
  readonly process = randomBytes(6).toString('base64url')
  readonly #connections: Connections
  readonly #settings: LeaseSettings
  readonly #fixed: readonly string[]
  #known: Known = { epoch: '', n: 0, mark: '' }
  /** What a new epoch would be called. */
  #candidate = randomBytes(6).toString('base64url')
  /** How far the clock of Redis is ahead of ours; undefined until it has answered. */
  #offset: number | undefined
  #ticks = 0

  constructor (connections: Connections, settings: LeaseSettings) {
    const { leaseMs, retentionMs, preservation, changes, clock } = settings
    this.#connections = connections
    this.#settings = settings
    this.#fixed = [leaseMs, retentionMs, preservation ? 1 : 0, changes, clock ? never : standstillMs, this.process].map(String)
  }

  /** Milliseconds since the epoch by the clock that leases are measured with. */
  now (): number {
    return Math.floor(this.#settings.clock?.() ?? this.redisTime() ?? Date.now())
  }

  /** By the clock of Redis itself, as well as we know it. */
  redisTime (): number | undefined {
    return this.#offset === undefined ? undefined : performance.now() + this.#offset
  }

  /** From now on this says what the process knows of changes: a Redis that knows less, or otherwise, has lost some. */
  follow (known: Known): void {
    this.#known = known
  }

  /**
   * A script that would begin after its caller has given it up does nothing: what is late was refused.
   * @throws when Redis does not answer in time, or refuses
   */
  async run (script: AgentScript, args: ReadonlyArray<string | number> = []): Promise<Reply> {
    return this.#read(await this.#connections.run(script, 'meta', [...this.#context(this.latest()), ...args]))
  }

  /** As `run`, but never too late. It learns what time it is in Redis. */
  async look (nonce: string): Promise<Reply> {
    const sent = performance.now()
    const reply = await this.#connections.run('pulse', 'meta', [...this.#context(''), nonce]) as RawReply
    this.#learn(Number(reply[2]), sent, performance.now())
    return this.#read(reply)
  }

  /** Until when Redis may begin with what is sent now. */
  latest (): string {
    const time = this.redisTime()
    return time === undefined ? '' : (time + this.#connections.commandTimeoutMs).toFixed(3)
  }

  /** Redis answered between the two: what was known stays where that may be so. */
  #learn (real: number, sent: number, received: number) {
    const offset = this.#offset ?? real - (sent + received) / 2
    this.#offset = Math.min(real - sent, Math.max(real - received, offset))
  }

  #context (latest: string): Array<string | number> {
    const { epoch, n, mark } = this.#known
    return [epoch, n, this.#candidate, latest, this.#clockText(), ...this.#fixed, mark]
  }

  #clockText (): string {
    const { clock } = this.#settings
    return clock ? (clock() + (this.#ticks++ % ticksPerMs) / ticksPerMs).toFixed(5) : ''
  }

  #read (raw: unknown): Reply {
    const [epoch, revision, , now, told, status, extra] = raw as RawReply
    if (epoch === this.#candidate) this.#candidate = randomBytes(6).toString('base64url')
    return { epoch, revision, now, told, status, extra }
  }
}
