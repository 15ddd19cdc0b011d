import type { Test } from 'tap'
import { sleep } from './harness.js'

export interface HeartbeatLoopOptions {
  ids: readonly string[]
  everyMs: number
  /** Sends one heartbeat; a failed one is repeated at the next interval. */
  beat: (id: string) => Promise<unknown>
  /** Number of concurrent heartbeats. */
  width?: number
}

/** Sends heartbeats of agents until they are silenced or the test ends. */
export class HeartbeatLoop {
  readonly #ids: Set<string>
  readonly #options: HeartbeatLoopOptions
  readonly #running: Promise<void>
  #isOver = false

  constructor (t: Test, options: HeartbeatLoopOptions) {
    this.#ids = new Set(options.ids)
    this.#options = options
    this.#running = this.#run()
    t.teardown(() => this.stop())
  }

  silence (ids: readonly string[]): void {
    for (const id of ids) this.#ids.delete(id)
  }

  async stop (): Promise<void> {
    this.#isOver = true
    await this.#running
  }

  async #run () {
    const { everyMs, width = 500 } = this.#options
    while (!this.#isOver) {
      const begun = performance.now()
      const ids = [...this.#ids]
      for (let i = 0; i < ids.length && !this.#isOver; i += width) await Promise.all(ids.slice(i, i + width).map(id => this.#beat(id)))
      await sleep(Math.max(0, begun + everyMs - performance.now()))
    }
  }

  async #beat (id: string) {
    if (this.#ids.has(id)) await this.#options.beat(id).catch(() => {})
  }
}
