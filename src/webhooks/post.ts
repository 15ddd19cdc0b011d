import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http'
import { request as httpsRequest } from 'node:https'
import type { LookupAddress } from 'node:dns'
import type { LookupFunction } from 'node:net'

export interface PostOptions {
  url: URL
  body: string
  /** Where the socket may connect to: nothing is resolved again. */
  addresses: readonly LookupAddress[]
  userAgent: string
  signal: AbortSignal
}

const maxAnswerBytes = 65_536

/** A resolver that only knows the addresses that were checked. */
function answering (addresses: readonly LookupAddress[]): LookupFunction {
  const [first] = addresses
  return function lookup (_hostname, { all }, callback) {
    if (all) callback(null, [...addresses])
    else callback(null, first!.address, first!.family)
  }
}

/** Host without the brackets that a URL puts around IPv6. */
export const hostOf = ({ hostname }: URL): string => hostname.replace(/^\[(.*)\]$/, '$1')

/** Made of parts: a URL as a whole would have its userinfo sent. */
function optionsOf ({ url, body, addresses, userAgent, signal }: PostOptions): RequestOptions {
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
    lookup: answering(addresses),
    signal
  }
}

/** Reads to the end or to the limit: who is told something should not find the line cut before it has answered. */
async function discard (response: IncomingMessage): Promise<void> {
  let bytes = 0
  for await (const chunk of response) {
    bytes += (chunk as Buffer).length
    if (bytes >= maxAnswerBytes) return
  }
}

/** One POST of JSON, without redirects. Resolves with the status once the answer has been read. */
export async function post (options: PostOptions): Promise<number> {
  const send = options.url.protocol === 'https:' ? httpsRequest : httpRequest
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    // A server that switches protocols is cut off without an error.
    send(optionsOf(options), resolve).on('error', reject).on('close', () => reject(new Error('closed'))).end(options.body)
  })
  await discard(response)
  return response.statusCode!
}
