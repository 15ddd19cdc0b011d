import type { Test } from 'tap'
import type { Environment } from '../../src/server/env.js'
import { freePort, keys, password, Remote, secret } from './harness.js'
import { start, urlOf, type Started } from './server-process.js'
import { RedisServer } from './redis-server.js'

export interface FleetOptions {
  /** The server as it is built. */
  program: string
  size: number
  /** Where they run, and where is nothing that they read. */
  folder?: string
  redisUrl: string
  /** Variables of all of them. */
  env?: Environment
  /** What is different for one of them. */
  each?: (index: number) => MemberOptions
}

export interface MemberOptions {
  env?: Environment
  /** Arguments of node, before the program. */
  nodeArgs?: string[]
}

interface Place { t: Test, program: string, folder: string }

/** One stand-alone server, at the same address however often it is started anew. */
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

  /** All that this run of it has printed. */
  get output (): string { return this.#process.output() }
  get pid (): number { return this.#process.child.pid! }

  signal (name: NodeJS.Signals): void {
    this.#process.child.kill(name)
  }

  /** Ends it; resolves when it is gone. */
  async kill (signal: NodeJS.Signals = 'SIGKILL') {
    this.signal(signal)
    return this.#process.ended
  }

  /** Starts it anew, at the same address. */
  async restart (): Promise<void> {
    const port = new URL(this.base).port
    this.#process = launch(this.#place, { ...this.#options, env: { ...this.#options.env, PORT: port } })
    await urlOf(this.#process)
  }
}

function launch ({ t, program, folder }: Place, { env = {}, nodeArgs = [] }: MemberOptions): Started {
  const started = start(t, folder, { env, args: [...nodeArgs, program] })
  // Before the signal that ends it: what is stopped does not hear of that. Nothing of it is drained, the test is over.
  t.teardown(() => { started.child.kill('SIGKILL') })
  return started
}

/** What all members of a fleet must agree on, and what lets a test watch them closely. */
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

/** Several stand-alone servers, each a process of its own, that are one registry. They end with the test. */
export async function startFleet (t: Test, { program, size, folder = t.testdir(), redisUrl, env = {}, each = () => ({}) }: FleetOptions): Promise<Member[]> {
  const place = { t, program, folder }
  return Promise.all(Array.from({ length: size }, (_, index) => {
    const { env: own = {}, nodeArgs } = each(index)
    return Member.start(place, { env: { ...sharedEnvironment, REDIS_URL: redisUrl, ...env, ...own }, nodeArgs })
  }))
}

/** A redis-server that is also reached by an address; stopped with the test. */
export async function startRedis (t: Test, ...args: string[]): Promise<{ redis: RedisServer, redisUrl: string }> {
  const port = await freePort()
  const redis = await RedisServer.start('--bind', '127.0.0.1', '--port', String(port), ...args)
  t.teardown(() => redis.stop())
  return { redis, redisUrl: `redis://127.0.0.1:${port}` }
}
