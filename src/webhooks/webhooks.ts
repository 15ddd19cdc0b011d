import { promises as dns, type LookupAddress } from 'node:dns'
import { problem, tooMany } from '../errors.js'
import { implementation } from '../protocol/identity.js'
import type { Clock } from '../lib/clock.js'
import { isLoopback, isPublicAddress } from './addresses.js'
import { hostOf, post } from './post.js'
import { Quotas, type Quota } from './quotas.js'

export interface OutgoingOptions {
  now: Clock
  /** Lets calls to this machine through: right only while the registry itself can be reached from nowhere else. */
  allowLoopback?: () => boolean
  perCaller?: Quota
  perTarget?: Quota
  /** Calls at once. */
  maxConcurrent?: number
  /** Time for one call, from the name to the end of the answer (ms). */
  timeoutMs?: number
  /** All addresses of a host; default: the system's resolver. */
  resolve?: (host: string) => Promise<LookupAddress[]>
}

/** Who asks for a call, and which agent it is for: each is limited. */
export interface Parties { caller: string, target: string }

const resolveAll = (host: string) => dns.lookup(host, { all: true })

/** The same for what is not allowed and for what does not answer: nobody learns of our network by asking. */
const unreachable = () => problem('endpoint-unreachable', 'The endpoint of this agent could not be reached')

/** The URL to call; undefined when it is none of HTTP. */
function httpUrl (text: string): URL | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined
  return url && /^https?:$/.test(url.protocol) ? url : undefined
}

/** Settles as `promise` does, or rejects when the signal is aborted first. */
function orAborted<T> (promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    promise.then(resolve, reject)
  })
}

/** Calls to the endpoints of agents, which may be anything that somebody registered. */
export class OutgoingCalls {
  readonly #resolve: (host: string) => Promise<LookupAddress[]>
  readonly #allowLoopback: () => boolean
  readonly #maxConcurrent: number
  readonly #timeoutMs: number
  readonly #callers: Quotas
  readonly #targets: Quotas
  readonly #open = new Set<AbortController>()
  #isClosed = false

  constructor (options: OutgoingOptions) {
    this.#resolve = options.resolve ?? resolveAll
    this.#allowLoopback = options.allowLoopback ?? (() => false)
    this.#maxConcurrent = options.maxConcurrent ?? 32
    this.#timeoutMs = options.timeoutMs ?? 5_000
    this.#callers = new Quotas(options.perCaller ?? { burst: 10, perMinute: 10 }, options.now)
    this.#targets = new Quotas(options.perTarget ?? { burst: 30, perMinute: 30 }, options.now)
  }

  /**
   * Sends JSON to a URL whose every address is public; the answer is read and dropped.
   * @throws endpoint-unreachable, connection-timeout, rate-limit-exceeded
   */
  async post (url: string, body: unknown, { caller, target }: Parties): Promise<{ status: number }> {
    this.#admit(caller, target)
    const controller = new AbortController()
    const timer = setTimeout(() => controller.abort(problem('connection-timeout', 'The endpoint of this agent did not answer in time')), this.#timeoutMs).unref()
    this.#open.add(controller)
    try {
      return { status: await this.#send(url, JSON.stringify(body), controller.signal) }
    } catch {
      throw controller.signal.reason ?? unreachable()
    } finally {
      clearTimeout(timer)
      this.#open.delete(controller)
    }
  }

  /** Ends every call. */
  close (): void {
    this.#isClosed = true
    for (const controller of this.#open) controller.abort(unreachable())
  }

  #admit (caller: string, target: string) {
    if (this.#isClosed) throw unreachable()
    if (this.#open.size >= this.#maxConcurrent) throw tooMany('rate-limit-exceeded', 'Too many calls to agents at once', 1_000)
    const wait = this.#callers.take(caller) || this.#targets.take(target)
    if (wait > 0) throw tooMany('rate-limit-exceeded', 'Too many calls to agents', wait)
  }

  async #send (text: string, body: string, signal: AbortSignal): Promise<number> {
    const url = httpUrl(text)
    if (!url) throw unreachable()
    const addresses = await orAborted(this.#resolve(hostOf(url)), signal)
    if (addresses.length === 0 || !addresses.every(({ address }) => this.#mayCall(address))) throw unreachable()
    return post({ url, body, addresses, userAgent: `${implementation.name}/${implementation.version}`, signal })
  }

  #mayCall (address: string): boolean {
    return isPublicAddress(address) || (this.#allowLoopback() && isLoopback(address))
  }
}
