import { promises as dns, type LookupAddress } from 'node:dns'
import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http'
import { request as httpsRequest } from 'node:https'
import type { LookupFunction } from 'node:net'
import { problem, tooMany } from '../errors.js'
import type { Clock } from '../lib/clock.js'
import { SharedBuckets } from '../limits/shared-buckets.js'
import { implementation } from '../protocol/identity.js'
import { isLoopback, isPublicAddress } from './addresses.js'

export interface Quota {
  /** Requests in a burst. */
  burst: number
  /** Sustained requests per minute. */
  perMinute: number
}

export interface WebhooksOptions {
  now: Clock
  /** Whether requests to this machine are allowed; safe only while the registry itself listens on loopback only. */
  allowLoopback?: () => boolean
  perCaller?: Quota
  perTarget?: Quota
  /** Maximum number of concurrent requests. */
  maxConcurrent?: number
  /** Timeout of a request, from name resolution to the end of the response (ms). */
  timeoutMs?: number
  /** Returns all addresses of a host; default: the resolver of the system. */
  resolve?: (host: string) => Promise<LookupAddress[]>
}

/** The client on whose behalf a request is sent and the agent that receives it; both are rate limited. */
interface Parties { caller: string, target: string }

interface PostOptions {
  url: URL
  body: string
  /** The addresses to connect to; the host is not resolved again. */
  addresses: readonly LookupAddress[]
  signal: AbortSignal
}

const maxResponseBytes = 65_536
const userAgent = `${implementation.name}/${implementation.version}`

const resolveAll = (host: string) => dns.lookup(host, { all: true })

/** One error for addresses that are not allowed and for failures, so that a caller cannot probe the internal network. */
export const unreachable = () => problem('endpoint-unreachable', 'The endpoint of this agent could not be reached')

/** The URL to call, or undefined if it is not an HTTP URL. */
function httpUrl (text: string): URL | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined
  return url && /^https?:$/.test(url.protocol) ? url : undefined
}

/** The host without the brackets that a URL puts around IPv6 addresses. */
const hostOf = ({ hostname }: URL): string => hostname.replace(/^\[(.*)\]$/, '$1')

/** Settles like `promise`, or rejects when the signal is aborted first. */
function orAborted<T> (promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    promise.then(resolve, reject)
  })
}

/** A resolver that returns only the addresses that were checked. */
function lookupOf (addresses: readonly LookupAddress[]): LookupFunction {
  return function lookup (_hostname, { all }, callback) {
    const [first] = addresses
    if (all || !first) callback(null, [...addresses])
    else callback(null, first.address, first.family)
  }
}

/** Built from the parts of the URL, because Node would send the user and password of a whole URL. */
function requestOptionsOf ({ url, body, addresses, signal }: PostOptions): RequestOptions {
  return {
    method: 'POST',
    hostname: hostOf(url),
    port: url.port,
    path: url.pathname + url.search,
    headers: {
      host: url.host,
      'user-agent': userAgent,
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
      accept: 'application/json',
      connection: 'close'
    },
    agent: false,
    lookup: lookupOf(addresses),
    signal
  }
}

/** Reads the response to its end or to the limit, so that the agent does not see a reset connection. */
async function discard (response: IncomingMessage): Promise<void> {
  let bytes = 0
  for await (const chunk of response) {
    bytes += Buffer.byteLength(chunk)
    if (bytes >= maxResponseBytes) return
  }
}

/** Sends one POST request without following redirects. Resolves with the status once the response is read. */
async function post (options: PostOptions): Promise<number> {
  const send = options.url.protocol === 'https:' ? httpsRequest : httpRequest
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    // Node emits 'close' without 'error' if the server switches protocols.
    send(requestOptionsOf(options), resolve).on('error', reject).on('close', () => reject(new Error('closed'))).end(options.body)
  })
  await discard(response)
  return response.statusCode ?? 0
}

const bucketsOf = ({ burst, perMinute }: Quota, now: Clock) => new SharedBuckets({ perSecond: perMinute / 60, burst }, now)

/** Requests to the endpoints of agents. An endpoint is untrusted: any client that may register an agent chooses its URL. */
export class Webhooks {
  readonly #resolve: (host: string) => Promise<LookupAddress[]>
  readonly #allowLoopback: () => boolean
  readonly #maxConcurrent: number
  readonly #timeoutMs: number
  readonly #callers: SharedBuckets
  readonly #targets: SharedBuckets
  readonly #open = new Set<AbortController>()
  #isClosed = false

  constructor (options: WebhooksOptions) {
    this.#resolve = options.resolve ?? resolveAll
    this.#allowLoopback = options.allowLoopback ?? (() => false)
    this.#maxConcurrent = options.maxConcurrent ?? 32
    this.#timeoutMs = options.timeoutMs ?? 5_000
    this.#callers = bucketsOf(options.perCaller ?? { burst: 10, perMinute: 10 }, options.now)
    this.#targets = bucketsOf(options.perTarget ?? { burst: 30, perMinute: 30 }, options.now)
  }

  /**
   * Sends JSON to a path below the endpoint of an agent.
   * @returns the status: a success or 404
   * @throws endpoint-unreachable also for any other status; connection-timeout, rate-limit-exceeded
   */
  async deliver (endpoint: string, path: string, body: unknown, parties: Parties): Promise<number> {
    const { status } = await this.post(endpoint.replace(/\/+$/, '') + path, body, parties)
    if (status !== 404 && (status < 200 || status > 299)) throw unreachable()
    return status
  }

  /**
   * Sends JSON to a URL. All addresses of its host must be public. The response is read and discarded.
   * @throws endpoint-unreachable, connection-timeout, rate-limit-exceeded
   */
  async post (url: string, body: unknown, { caller, target }: Parties): Promise<{ status: number }> {
    this.#admit(caller, target)
    const controller = new AbortController()
    const timeout = () => controller.abort(problem('connection-timeout', 'The endpoint of this agent did not respond in time'))
    const timer = setTimeout(timeout, this.#timeoutMs).unref()
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

  /** Aborts all open requests. */
  close (): void {
    this.#isClosed = true
    for (const controller of this.#open) controller.abort(unreachable())
  }

  #admit (caller: string, target: string) {
    if (this.#isClosed) throw unreachable()
    if (this.#open.size >= this.#maxConcurrent) throw tooMany('rate-limit-exceeded', 'Too many concurrent requests to agents', 1_000)
    const wait = this.#callers.take(caller) || this.#targets.take(target)
    if (wait > 0) throw tooMany('rate-limit-exceeded', 'Too many requests to agents', wait)
  }

  async #send (text: string, body: string, signal: AbortSignal): Promise<number> {
    const url = httpUrl(text)
    if (!url) throw unreachable()
    const addresses = await orAborted(this.#resolve(hostOf(url)), signal)
    if (addresses.length === 0 || !addresses.every(({ address }) => this.#isAllowed(address))) throw unreachable()
    return post({ url, body, addresses, signal })
  }

  #isAllowed (address: string): boolean {
    return isPublicAddress(address) || (this.#allowLoopback() && isLoopback(address))
  }
}
