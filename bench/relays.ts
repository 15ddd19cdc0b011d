// Peers of the messaging parts: servers that only relay messages, to all, by id, or back to the requester.
import { createServer } from 'node:http'
import type { Socket } from 'node:net'
import { Redis } from 'ioredis'
import { Server as SocketIo } from 'socket.io'
import type { WebSocket } from 'ws'
import { listen, startWs } from './bare-servers.js'
import { serverFrame } from './frames.js'
import type { SocketServer } from './socket-server.js'

interface Frame { type: string, token?: string, to: string, rid: string, requestId: string, data: unknown }

const welcome = '{"type":"auth_success"}'

/** Relays each text unchanged to all other clients. */
const relaying = (relay: (clients: Iterable<WebSocket>, from: WebSocket, text: string) => void) => async (): Promise<SocketServer> => {
  const { port, clients } = await startWs(socket => {
    socket.on('message', (data: Buffer) => { relay(clients, socket, data.toString()) })
  })
  return { port }
}

function sendText (clients: Iterable<WebSocket>, from: WebSocket, text: string) {
  for (const client of clients) if (client !== from) client.send(text)
}

/** The lower limit of the cost: one frame, written below ws. */
function writeFrame (clients: Iterable<WebSocket>, from: WebSocket, text: string) {
  const frame = serverFrame(text)
  for (const client of clients) if (client !== from) (client as unknown as { _socket: Socket })._socket.write(frame)
}

async function room (): Promise<SocketServer> {
  const server = createServer()
  const io = new SocketIo(server, { transports: ['websocket'], perMessageDeflate: false, serveClient: false, pingInterval: 600_000 })
  io.on('connection', socket => {
    socket.join('watchers')
    socket.on('message', event => { socket.to('watchers').emit('message', event) })
  })
  return { port: await listen(server) }
}

type OnNamed = (socket: WebSocket, name: string) => void
type OnFrame = (socket: WebSocket, name: string, text: string) => void

/** Names each socket by the token in its first frame. */
async function startNamed (onNamed: OnNamed, onFrame: OnFrame): Promise<SocketServer> {
  const { port } = await startWs(socket => {
    let name: string | undefined
    socket.on('message', (data: Buffer) => {
      const text = data.toString()
      if (name !== undefined) return onFrame(socket, name, text)
      name = (JSON.parse(text) as Frame).token!
      onNamed(socket, name)
      socket.send(welcome)
    })
  })
  return { port }
}

function byId (): Promise<SocketServer> {
  const sockets = new Map<string, WebSocket>()
  return startNamed((socket, name) => { sockets.set(name, socket) }, (_socket, from, text) => {
    const { to, data } = JSON.parse(text) as Frame
    sockets.get(to)!.send(JSON.stringify({ type: 'direct', from, data }))
  })
}

/** Gives requests to the agents in turn. Names of agents begin with `agent`. */
class RoundRobin {
  readonly #sockets: WebSocket[] = []
  #turn = 0

  add (socket: WebSocket, name: string): void {
    if (name.startsWith('agent')) this.#sockets.push(socket)
  }

  send (text: string): void {
    this.#sockets[this.#turn++ % this.#sockets.length]!.send(text)
  }
}

/** Open requests, each under a number. */
class PendingRequests {
  readonly #open = new Map<string, { socket: WebSocket, requestId: string }>()
  #count = 0

  /** @returns the request as the agent receives it */
  add (socket: WebSocket, from: string, { requestId, data }: Frame): string {
    const rid = String(++this.#count)
    this.#open.set(rid, { socket, requestId })
    return JSON.stringify({ type: 'request', rid, from, data })
  }

  /** Ignores `accept`. */
  resolve (from: string, { type, rid, data }: Frame): void {
    if (type !== 'reply') return
    const { socket, requestId } = this.#open.get(rid)!
    this.#open.delete(rid)
    socket.send(JSON.stringify({ type: 'response', requestId, from, data }))
  }
}

function matching (): Promise<SocketServer> {
  const agents = new RoundRobin()
  const pending = new PendingRequests()
  return startNamed((socket, name) => { agents.add(socket, name) }, (socket, name, text) => {
    const frame = JSON.parse(text) as Frame
    if (frame.type === 'request') agents.send(pending.add(socket, name, frame))
    else pending.resolve(name, frame)
  })
}

/** One of two processes: requesters are connected to one, agents to the other, which relays without parsing. */
const overRedis = (enableAutoPipelining: boolean) => async (argument: string): Promise<SocketServer> => {
  const { url, forRequesters } = JSON.parse(argument) as { url: string, forRequesters: boolean }
  const [publisher, subscriber] = [new Redis(url, { enableAutoPipelining }), new Redis(url)]
  const agents = new RoundRobin()
  const pending = new PendingRequests()
  const [own, other] = forRequesters ? ['requesters', 'agents'] : ['agents', 'requesters']
  await subscriber.subscribe(own)
  subscriber.on('message', (_channel: string, text: string) => {
    if (forRequesters) pending.resolve('agent', JSON.parse(text) as Frame)
    else agents.send(text)
  })
  return startNamed((socket, name) => { agents.add(socket, name) }, (socket, name, text) => {
    publisher.publish(other, forRequesters ? pending.add(socket, name, JSON.parse(text) as Frame) : text)
  })
}

export const relays = {
  'ws, text passed on': relaying(sendText),
  'ws, prepared frame passed on': relaying(writeFrame),
  'Socket.IO room, passed on': room,
  'ws, relay by id': byId,
  'ws, relay that matches ids': matching,
  'ws + ioredis relay': overRedis(false),
  'ws + ioredis relay, auto-pipelining': overRedis(true)
} satisfies Record<string, (argument: string) => Promise<SocketServer>>
