// Programs of bench/ in processes of their own, which are controlled by messages.
import { fork, type ChildProcess, type Serializable } from 'node:child_process'
import { once } from 'node:events'

/** Waits for the next message. @throws when the program ends first */
function nextMessage (child: ChildProcess): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const onExit = (code: number | null) => { reject(new Error(`${child.spawnargs.slice(2).join(' ')} ended with ${code}`)) }
    child.once('exit', onExit).once('message', message => {
      child.off('exit', onExit)
      resolve(message)
    })
  })
}

export class BenchProcess {
  readonly child: ChildProcess
  port = 0
  details: Record<string, unknown> = {}

  private constructor (child: ChildProcess) { this.child = child }

  /** Resolves when the program has sent its first message: its port and details. */
  static async start (file: string, args: string[]): Promise<BenchProcess> {
    const started = new BenchProcess(fork(new URL(file, import.meta.url), args, { execArgv: ['--expose-gc'] }))
    const message = await nextMessage(started.child) as { port: number } & Record<string, unknown>
    started.port = message.port
    started.details = message
    return started
  }

  get url () { return `http://127.0.0.1:${this.port}` }

  /** Sends a message and waits for the response. */
  async request<T> (message: Serializable): Promise<T> {
    this.send(message)
    return this.receive<T>()
  }

  /** Sends a message without waiting for a response. */
  send (message: Serializable): void { this.child.send(message) }

  /** Waits for the next message of the program. */
  async receive<T> (): Promise<T> {
    return await nextMessage(this.child) as T
  }

  /** @returns CPU time of the process so far, user and system, in microseconds */
  async cpu (): Promise<number> {
    const { user, system } = await this.request<NodeJS.CpuUsage>('cpu')
    return user + system
  }

  /** Disconnects, on which the program exits. */
  stop (): void { this.child.disconnect() }

  /** Lets the program close its server and storage, and waits for its exit. */
  async close (): Promise<void> {
    this.child.send('close')
    await once(this.child, 'exit')
  }
}
