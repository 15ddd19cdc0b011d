import type { Test } from 'tap'
import type { Environment } from '../../src/server/env.js'
import { freePort, keys, password, Remote, secret } from './harness.js'
import { start, urlOf, type Started } from './server-process.js'
import { RedisServer } from './redis-server.js'

export interface FleetOptions {
  /** The built server. */
  program: string
  size: number
  /** Working directory of the processes, without configuration files. */
  folder?: string
  redisUrl: string
  /** Variables of every process. */
  env?: Environment
  /** Variables of one process. */
  each?: (index: number) => MemberOptions
}

export interface MemberOptions {
  env?: Environment
  /** Arguments of node before the program. */
  nodeArgs?: string[]
}

interface Place { t: Test, program: string, folder: string }

/** A stand-alone server that keeps its address across restarts. */
export class Member extends Remote {
  readonly #place: Place
  readonly #options: MemberOptions
  #process: Started

  private constructor (base: string, started: Started, place: Place, options: MemberOptions) {
    super(base)
    this.#process = started
    this.#place = place
    this.#options = options
  }

  static async start (place: Place, options: MemberOptions): Promise<Member> {
    const started = launch(place, options)
    return new Member(await urlOf(started), started, place, options)
  }

  /** Output of the current run. */
  get output (): string { return this.#process.output() }
  get pid (): number { return this.#process.child.pid! }

  signal (name: NodeJS.Signals): void {
    this.#process.child.kill(name)
  }

  /** Ends the process and waits for its exit. */
  async kill (signal: NodeJS.Signals = 'SIGKILL') {
    this.signal(signal)
    return this.#process.ended
  }

  /** Restarts the process at the same address. */
  async restart (): Promise<void> {
    const port = new URL(this.base).port
    this.#process = launch(this.#place, { ...this.#options, env: { ...this.#options.env, PORT: port } })
    await urlOf(this.#process)
  }
}

function launch ({ t, program, folder }: Place, { env = {}, nodeArgs = [] }: MemberOptions): Started {
  const started = start(t, folder, { env, args: [...nodeArgs, program] })
  // SIGKILL comes before the SIGTERM of the server's own teardown, which a stopped process would not handle. No drain is needed here.
  t.teardown(() => { started.child.kill('SIGKILL') })
  return started
}

/** Variables that all members share, with short intervals for tests. */
export const sharedEnvironment: Environment = {
  PORT: '0',
  STORE: 'redis',
  JWT_SECRET: secret,
  ADMIN_PASSWORD: password,
  AGENT_KEYS: Object.values(keys).join(),
  LOG_LEVEL: 'warn',
  WEBSOCKET_DRAIN: '0.3',
  WEBSOCKET_MAX_CONNECTIONS: '1000',
  WEBSOCKET_MAX_UNAUTHENTICATED: '1000',
  WEBSOCKET_MAX_UNAUTHENTICATED_PER_ADDRESS: '1000',
  MAX_SESSIONS: '100',
  ARCP_BOOKMARK_INTERVAL: '0.3'
}

/** Stand-alone servers in processes of their own that form one registry and end with the test. */
export async function startFleet (
  t: Test, { program, size, folder = t.testdir(), redisUrl, env = {}, each = () => ({}) }: FleetOptions
): Promise<Member[]> {
  const place = { t, program, folder }
  return Promise.all(Array.from({ length: size }, (_, index) => {
    const { env: own = {}, nodeArgs } = each(index)
    return Member.start(place, { env: { ...sharedEnvironment, REDIS_URL: redisUrl, ...env, ...own }, nodeArgs })
  }))
}

/** A redis-server that listens on TCP too, and ends with the test. */
export async function startRedis (t: Test, ...args: string[]): Promise<{ redis: RedisServer, redisUrl: string }> {
  const port = await freePort()
  const redis = await RedisServer.start('--bind', '127.0.0.1', '--port', String(port), ...args)
  t.teardown(() => redis.stop())
  return { redis, redisUrl: `redis://127.0.0.1:${port}` }
}
