import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import type { Test } from 'tap'
import { find } from './tools.js'

const program = find('redis-server')

/** A redis-server on a socket in a temporary folder. It persists nothing unless `save` is called. */
export class RedisServer {
  readonly folder: string
  readonly #args: readonly string[]
  #process: ChildProcess | undefined
  #client: Redis | undefined

  private constructor (folder: string, args: readonly string[]) {
    this.folder = folder
    this.#args = args
  }

  /** The server in `folder`, which another process started and stops. */
  static attach (folder: string): RedisServer {
    return new RedisServer(folder, [])
  }

  /** @param args more settings, as on the command line */
  static async start (...args: string[]): Promise<RedisServer> {
    const server = new RedisServer(await mkdtemp(join(tmpdir(), 'redis-')), args)
    await server.start().catch(async error => {
      await server.stop()
      throw error
    })
    return server
  }

  get path () { return join(this.folder, 'redis.sock') }

  /** A client for the test. */
  get client (): Redis {
    // The socket file is missing before the start and after a kill.
    const password = this.#args[this.#args.indexOf('--requirepass') + 1]
    this.#client ??= new Redis({
      path: this.path,
      retryStrategy: () => 20,
      ...(this.#args.includes('--requirepass') &&
      { password })
    }).on('error', () => {})
    return this.#client
  }

  async start (): Promise<void> {
    const args = ['--port', '0', '--unixsocket', this.path, '--dir', this.folder, '--save', '', '--appendonly', 'no', ...this.#args]
    this.#process = spawn(program, args, { stdio: 'ignore' })
    const ended = once(this.#process, 'exit').then(() => { throw new Error('redis-server has ended') })
    await Promise.race([ended, this.client.ping()])
    ended.catch(() => {})
  }

  /** Stops the process; its connections stay open. */
  freeze (): void {
    this.#process!.kill('SIGSTOP')
  }

  thaw (): void {
    this.#process!.kill('SIGCONT')
  }

  async kill (): Promise<void> {
    this.#process!.kill('SIGKILL')
    await once(this.#process!, 'exit')
  }

  async stop (): Promise<void> {
    this.#client?.disconnect()
    if (this.#process === undefined) return
    if (this.#process.exitCode === null && this.#process.signalCode === null) await this.kill()
    await rm(this.folder, { recursive: true, force: true })
  }
}

/**
 * The server of this run, which scripts/test.js started, or one for this file. Tests that freeze or kill a server start
 * their own; all others use a namespace each.
 */
export async function sharedRedis (t: Test): Promise<RedisServer> {
  const folder = process.env.TEST_REDIS_FOLDER
  const server = folder === undefined ? await RedisServer.start() : RedisServer.attach(folder)
  t.teardown(() => server.stop())
  return server
}

/** Polls a condition for at most 30 s. @param state describes the state in the error */
export async function eventually (what: string, holds: () => boolean | Promise<boolean>, state: () => unknown = () => ''): Promise<void> {
  const end = Date.now() + 30_000
  while (!await holds()) {
    if (Date.now() > end) throw new Error(`Not in time: ${what} ${JSON.stringify(state())}`)
    await sleep(10)
  }
}
