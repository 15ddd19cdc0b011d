import { performance } from 'node:perf_hooks'
import type { Connections, LinkListener, LinkName } from './connections.js'

export interface WatchdogOptions {
  connections: Connections
  probeIntervalMs: number
  /** Begins every nonce of this process. */
  process: string
  /** Runs often: looks at Redis, with a nonce that is to come back as a message and as an entry of a stream. */
  look: (nonce: string) => Promise<void>
  /** Redis cannot be reached, or not in one of the ways that it must. */
  failed: (fault: string) => void
  /** All ways are open again: makes good what was missed. When it rejects it is called again. */
  recover: (outage: { ms: number, links: ReadonlySet<LinkName> }) => Promise<void>
  /** It was made good. */
  recovered: () => void
}

const pulseMs = 250

/**
 * Finds out when a connection is gone or half-dead: one that is open and over which nothing comes. Such a one is cut and
 * another is made.
 */
export class Watchdog implements LinkListener {
  readonly #options: WatchdogOptions
  readonly #faults = new Map<LinkName, string>()
  /** Where the newest nonce was heard. */
  readonly #heard = new Set<LinkName>()
  /** Since when something is wrong, and which links were. */
  #outage: { since: number, links: Set<LinkName> } | undefined
  #timer: NodeJS.Timeout | undefined
  #looking: Promise<void> | undefined
  #recovering = false
  #nonce = ''
  #count = 0
  #probedAt = 0

  constructor (options: WatchdogOptions) {
    this.#options = options
  }

  /** What is wrong, or null. */
  get fault (): string | null {
    const [fault = null] = this.#faults.values()
    return fault
  }

  /** Nobody can say when the next change will come. */
  get isStalled (): boolean {
    return this.#faults.has('commands') || this.#faults.has('changes')
  }

  start (): void {
    this.#options.connections.listen(this)
    this.#probedAt = 0
    this.#nonce = ''
    this.#timer = setInterval(() => { this.#tick() }, Math.min(pulseMs, this.#options.probeIntervalMs / 2)).unref()
    this.#tick()
  }

  async stop (): Promise<void> {
    clearInterval(this.#timer)
    this.#options.connections.unlisten(this)
    this.#faults.clear()
    this.#outage = undefined
    await this.#looking
  }

  /** Sends a nonce with the next look, which is now. */
  probe (): void {
    this.#probedAt = 0
    this.#nonce = ''
    this.#tick()
  }

  /** A nonce came this way. */
  hear (link: LinkName, nonce: string): void {
    if (nonce !== this.#nonce) return
    this.#heard.add(link)
    this.#mend(link)
  }

  up (name: LinkName): void {
    // The look itself says whether commands work.
    if (name === 'commands') this.#tick()
    else this.probe()
  }

  down (name: LinkName, fault: string): void {
    this.#fail(name, fault)
  }

  #tick () {
    this.#looking ??= this.#look().finally(() => { this.#looking = undefined })
  }

  async #look (): Promise<void> {
    try {
      await this.#options.look(this.#nextNonce())
      this.#mend('commands')
    } catch (error) {
      this.#cut('commands', (error as Error).message)
    }
  }

  #nextNonce (): string {
    const now = performance.now()
    if (this.#probedAt !== 0 && now - this.#probedAt < this.#options.probeIntervalMs) return ''
    if (this.#nonce !== '') for (const link of ['changes', 'messages'] as const) if (!this.#heard.has(link)) this.#cut(link, `nothing comes over the connection for ${link}`)
    this.#heard.clear()
    this.#probedAt = now
    this.#nonce = `${this.#options.process}:${++this.#count}`
    return this.#nonce
  }

  #cut (link: LinkName, fault: string) {
    this.#fail(link, fault)
    this.#options.connections.links[link].cut()
  }

  #fail (link: LinkName, fault: string) {
    const isNew = this.#outage === undefined
    if (!this.#faults.has(link)) this.#faults.set(link, fault)
    this.#outage ??= { since: performance.now(), links: new Set() }
    this.#outage.links.add(link)
    if (isNew) this.#options.failed(fault)
  }

  #mend (link: LinkName) {
    this.#faults.delete(link)
    if (this.#outage && this.#faults.size === 0 && !this.#recovering) this.#recover(this.#outage)
  }

  async #recover (outage: { since: number, links: ReadonlySet<LinkName> }): Promise<void> {
    this.#recovering = true
    const [{ status }] = await Promise.allSettled([this.#options.recover({ ms: performance.now() - outage.since, links: outage.links })])
    this.#recovering = false
    // Where that failed the next look finds all ways open, and tries again.
    if (status === 'rejected' || this.#faults.size > 0 || this.#outage !== outage) return
    this.#outage = undefined
    this.#options.recovered()
  }
}
