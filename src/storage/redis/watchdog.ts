import { performance } from 'node:perf_hooks'
import type { Connections, LinkName } from './connections.js'

/** An outage: its duration, and the connections that it affected. */
export interface Outage { readonly ms: number, readonly links: ReadonlySet<LinkName> }

interface WatchdogOptions {
  connections: Connections
  probeIntervalMs: number
  /** The prefix of the nonces of this process. */
  process: string
  /** Called frequently. Redis returns a nonce that is not empty as a message and as an entry of a stream. */
  pulse: (nonce: string) => Promise<void>
  /** Redis cannot be reached, or one of the connections does not work. */
  failed: (fault: string) => void
  /** All connections work again: catches up with missed events. It is called again when it rejects. */
  recover: (outage: Outage) => Promise<void>
  /** `recover` has succeeded. */
  recovered: () => void
}

const pulseMs = 250

/**
 * Detects connections that are lost, and connections that are open but deliver nothing. The latter are replaced.
 */
export class Watchdog {
  readonly #options: WatchdogOptions
  readonly #faults = new Map<LinkName, string>()
  /** The connections that delivered the newest nonce. */
  readonly #delivered = new Set<LinkName>()
  #outage: { since: number, links: Set<LinkName> } | undefined
  #unsubscribe: Array<() => void> = []
  #timer: NodeJS.Timeout | undefined
  #pulsing: Promise<void> | undefined
  #isRecovering = false
  #nonce = ''
  #nonces = 0
  #probedAt = 0

  constructor (options: WatchdogOptions) {
    this.#options = options
  }

  /** The oldest current fault, or null. */
  get fault (): string | null {
    const [fault = null] = this.#faults.values()
    return fault
  }

  /** Whether it is unknown when the next change will arrive. */
  get isStalled (): boolean {
    return this.#faults.has('commands') || this.#faults.has('changes')
  }

  start (): void {
    const { connections: { events }, probeIntervalMs } = this.#options
    this.#unsubscribe = [
      events.on('up', name => { this.#up(name) }),
      events.on('down', (name, fault) => { this.#fail(name, fault) })
    ]
    this.#probedAt = 0
    this.#nonce = ''
    this.#timer = setInterval(() => { this.#pulse() }, Math.min(pulseMs, probeIntervalMs / 2)).unref()
    this.#pulse()
  }

  async stop (): Promise<void> {
    clearInterval(this.#timer)
    for (const unsubscribe of this.#unsubscribe) unsubscribe()
    this.#faults.clear()
    this.#outage = undefined
    await this.#pulsing
  }

  /** Sends a nonce now. */
  probe (): void {
    this.#probedAt = 0
    this.#nonce = ''
    this.#pulse()
  }

  /** A connection delivered a nonce. */
  receive (link: LinkName, nonce: string): void {
    if (nonce !== this.#nonce) return
    this.#delivered.add(link)
    this.#clearFault(link)
  }

  #up (name: LinkName) {
    // The pulse itself shows whether commands work.
    if (name === 'commands') this.#pulse()
    else this.probe()
  }

  #pulse () {
    this.#pulsing ??= this.#sendPulse().finally(() => { this.#pulsing = undefined })
  }

  async #sendPulse (): Promise<void> {
    try {
      await this.#options.pulse(this.#nextNonce())
      this.#clearFault('commands')
    } catch (error) {
      this.#reconnect('commands', error instanceof Error ? error.message : String(error))
    }
  }

  /** @returns a new nonce when the probe interval has passed, otherwise '' */
  #nextNonce (): string {
    const now = performance.now()
    if (this.#probedAt !== 0 && now - this.#probedAt < this.#options.probeIntervalMs) return ''
    if (this.#nonce !== '') this.#checkDelivery()
    this.#delivered.clear()
    this.#probedAt = now
    this.#nonce = `${this.#options.process}:${++this.#nonces}`
    return this.#nonce
  }

  #checkDelivery () {
    for (const link of ['changes', 'messages'] as const) {
      if (!this.#delivered.has(link)) this.#reconnect(link, `the connection for ${link} delivers nothing`)
    }
  }

  #reconnect (link: LinkName, fault: string) {
    this.#fail(link, fault)
    this.#options.connections.links[link].reconnect()
  }

  #fail (link: LinkName, fault: string) {
    const isNew = this.#outage === undefined
    if (!this.#faults.has(link)) this.#faults.set(link, fault)
    this.#outage ??= { since: performance.now(), links: new Set() }
    this.#outage.links.add(link)
    if (isNew) this.#options.failed(fault)
  }

  #clearFault (link: LinkName) {
    this.#faults.delete(link)
    if (this.#outage && this.#faults.size === 0 && !this.#isRecovering) this.#recover(this.#outage)
  }

  async #recover (outage: { since: number, links: ReadonlySet<LinkName> }): Promise<void> {
    this.#isRecovering = true
    const recovery = this.#options.recover({ ms: performance.now() - outage.since, links: outage.links })
    const [{ status }] = await Promise.allSettled([recovery])
    this.#isRecovering = false
    // After a failure the next pulse finds all connections working, and recovery is tried again.
    if (status === 'rejected' || this.#faults.size > 0 || this.#outage !== outage) return
    this.#outage = undefined
    this.#options.recovered()
  }
}
