import { setTimeout as sleep } from 'node:timers/promises'
import type { Connections } from './connections.js'
import type { Feed } from './feed.js'
import { readEntry } from './records.js'

type Streams = Array<[key: string, entries: Array<[id: string, fields: string[]]>]>

export interface TailListener {
  /** A probe came through. */
  probe (nonce: string): void
  /** Changes are missing. */
  lost (): void
}

const entriesPerRead = 500
const retryMs = 50

/** Follows the stream of changes, from where the feed stands; probes come the same way and wake it. */
export class Tail {
  readonly #connections: Connections
  readonly #feed: Feed
  readonly #listener: TailListener
  #lastProbe = '0-0'
  #stopped = false
  #running: Promise<void> | undefined

  constructor (connections: Connections, feed: Feed, listener: TailListener) {
    this.#connections = connections
    this.#feed = feed
    this.#listener = listener
  }

  start (): void {
    this.#stopped = false
    this.#running = this.#run()
  }

  /** The connection is closed before or after: that ends the read. */
  async stop (): Promise<void> {
    this.#stopped = true
    await this.#running
  }

  async #run (): Promise<void> {
    while (!this.#stopped) {
      try {
        await this.#read()
      } catch {
        // The connection says itself what happened to it; another Redis may number its probes otherwise.
        this.#lastProbe = '0-0'
        if (!this.#stopped) await sleep(retryMs)
      }
    }
  }

  async #read (): Promise<void> {
    const { links: { changes: { client } }, base, blockMs } = this.#connections
    const { epoch, n, isFollowing } = this.#feed
    const keys = isFollowing ? [`${base}probes`, `${base}changes`] : [`${base}probes`]
    const positions = isFollowing ? [this.#lastProbe, `${n}-0`] : [this.#lastProbe]
    const streams = await client.xread('COUNT', entriesPerRead, 'BLOCK', blockMs, 'STREAMS', ...keys, ...positions)
    for (const [key, entries] of streams ?? []) {
      if (key === keys[0]) this.#hear(entries)
      else if (epoch === this.#feed.epoch) this.#follow(n, entries)
    }
  }

  #hear (entries: Streams[0][1]) {
    for (const [id, [, nonce]] of entries) {
      this.#lastProbe = id
      this.#listener.probe(nonce!)
    }
  }

  #follow (n: number, entries: Streams[0][1]) {
    if (Number.parseInt(entries[0]![0], 10) !== n + 1) return this.#listener.lost()
    this.#feed.offer(entries.filter(([id]) => Number.parseInt(id, 10) > this.#feed.n).map(readEntry))
  }
}
