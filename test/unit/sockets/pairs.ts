import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import type { Test } from 'tap'
import { WebSocket, WebSocketServer, type ClientOptions, type ServerOptions } from 'ws'
import { RawTransport, type TransportClass } from '../../../src/sockets/transport/ws.js'
import { Flusher, OutboundQueue, Traffic } from '../../../src/sockets/outbound.js'
import type { Encoding } from '../../../src/protocol/encoded-message.js'
import { until } from '../../support/harness.js'

/** A pre-shared key in place of certificates, which would have to be generated. */
const psk = Buffer.from('a secret of both sides of a test')
const shared = { ciphers: 'PSK+HIGH', maxVersion: 'TLSv1.2' } as const
export const tlsServer = { ...shared, pskCallback: () => psk }
export const tlsClient: ClientOptions = {
  ...shared, checkServerIdentity: () => undefined as never, pskCallback: () => ({ psk, identity: 'test' })
} as ClientOptions

/** The socket of either end. */
export const rawOf = (socket: WebSocket): Socket => (socket as unknown as { _socket: Socket })._socket

/** Messages of a client: text as a string, binary as bytes. */
export type Message = string | Buffer

export interface Pair {
  client: WebSocket
  received: Message[]
  pings: number
  closed: Promise<{ code: number, reason: string }>
  server: WebSocket
  outbound: OutboundQueue
  /** Bytes written to the network since the socket opened, by write. */
  writes: Buffer[]
  overflows: number
}

export interface SocketPairs {
  flusher: Flusher
  traffic: Traffic
  errors: unknown[]
  open (more?: { encoding?: Encoding, limit?: number, client?: ClientOptions }): Promise<Pair>
}

interface SocketPairsOptions { Transport?: TransportClass, tls?: boolean, server?: ServerOptions }

/** Counts the bytes of each write to a socket. */
function watchWrites (socket: Socket): Buffer[] {
  const writes: Buffer[] = []
  const write = socket.write.bind(socket) as (...args: unknown[]) => boolean
  socket.write = ((chunk: Buffer, ...rest: unknown[]) => {
    writes.push(chunk)
    return write(chunk, ...rest)
  }) as Socket['write']
  return writes
}

function listen (client: WebSocket): Pick<Pair, 'client' | 'received' | 'pings' | 'closed'> {
  const closed = once(client, 'close').then(([code, reason]) => ({ code, reason: String(reason) }))
  const side = { client, received: [] as Message[], pings: 0, closed }
  client.on('message', (data: Buffer, isBinary) => { side.received.push(isBinary ? data : String(data)) })
  client.on('ping', () => { side.pings++ }).on('error', () => {})
  return side
}

/** Outboxes of one registry, each with a client on a real connection. */
export async function socketPairs (
  t: Test, { Transport = RawTransport, tls = false, server: options = {} }: SocketPairsOptions = {}
): Promise<SocketPairs> {
  const http: Server = tls ? createTlsServer(tlsServer as object) : createServer()
  const sockets = new WebSocketServer({ server: http, ...options })
  http.listen(0, '127.0.0.1')
  await once(http, 'listening')
  t.teardown(() => {
    for (const socket of sockets.clients) socket.terminate()
    http.close()
  })
  let opened = 0
  const errors: unknown[] = []
  const [flusher, traffic] = [new Flusher(error => { errors.push(error) }), new Traffic()]
  const url = `${tls ? 'wss' : 'ws'}://127.0.0.1:${(http.address() as AddressInfo).port}`

  /** Both ends of one connection, with others opened concurrently. */
  async function connect (client?: ClientOptions) {
    const path = `/${++opened}`
    const side = listen(new WebSocket(url + path, { ...(tls && tlsClient), ...client }))
    const server = await new Promise<WebSocket>(resolve => {
      sockets.on('connection', (socket, request: IncomingMessage) => { if (request.url === path) resolve(socket) })
    })
    if (side.client.readyState !== WebSocket.OPEN) await once(side.client, 'open')
    return { side, server }
  }

  async function open ({ encoding = 'json', limit = 4_194_304, client }: Parameters<SocketPairs['open']>[0] = {}): Promise<Pair> {
    const { side, server } = await connect(client)
    server.on('error', () => {})
    const outbound = new OutboundQueue(
      { transport: new Transport(server), encoding, traffic, limit, closeSlow: () => { pair.overflows++ } }, flusher
    )
    const pair: Pair = Object.assign(side, { server, outbound, writes: watchWrites(rawOf(server)), overflows: 0 })
    return pair
  }
  return { flusher, traffic, errors, open }
}

/** Waits until a client has exactly this many messages. */
export async function receives ({ received }: Pair, count: number): Promise<Message[]> {
  await until(() => received.length >= count, 10_000)
  return received
}
