// What messaging is compared with: servers that only pass on what comes, to all, by id, or back to whoever asked.
import { createServer } from 'node:http'
import type { Socket } from 'node:net'
import { Redis } from 'ioredis'
import { Server as SocketIo } from 'socket.io'
import type { WebSocket } from 'ws'
import { listen, withWs } from './bare-servers.js'
import { serverFrame } from './frames.js'
import type { SocketServer } from './socket-server.js'

interface Frame { type: string, token?: string, to: string, rid: string, requestId: string, data: unknown }

const welcome = '{"type":"auth_success"}'

/** The text that came goes to all others as it is. */
const passing = (pass: (clients: Iterable<WebSocket>, from: WebSocket, text: string) => void) => async (): Promise<SocketServer> => {
  const { port, clients } = await withWs(socket => {
    socket.on('message', (data: Buffer) => { pass(clients, socket, data.toString()) })
  })
  return { port }
}

function sendText (clients: Iterable<WebSocket>, from: WebSocket, text: string) {
  for (const client of clients) if (client !== from) client.send(text)
}

/** The limit: one frame, below ws. */
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

/** Each socket has the name that it shows in its first frame. */
async function withNames (onNamed: (socket: WebSocket, name: string) => void, onFrame: (socket: WebSocket, name: string, text: string) => void): Promise<SocketServer> {
  const { port } = await withWs(socket => {
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
  return withNames((socket, name) => { sockets.set(name, socket) }, (_socket, from, text) => {
    const { to, data } = JSON.parse(text) as Frame
    sockets.get(to)!.send(JSON.stringify({ type: 'direct', from, data }))
  })
}

/** Those who are asked, in turn: their names begin with `agent`. */
class Agents {
  readonly #sockets: WebSocket[] = []
  #turn = 0

  add (socket: WebSocket, name: string): void {
    if (name.startsWith('agent')) this.#sockets.push(socket)
  }

  send (text: string): void {
    this.#sockets[this.#turn++ % this.#sockets.length]!.send(text)
  }
}

/** Requests that wait, each by a number. */
class Waiting {
  readonly #open = new Map<string, { socket: WebSocket, requestId: string }>()
  #count = 0

  /** @returns the request as the one who is asked gets it */
  add (socket: WebSocket, from: string, { requestId, data }: Frame): string {
    const rid = String(++this.#count)
    this.#open.set(rid, { socket, requestId })
    return JSON.stringify({ type: 'request', rid, from, data })
  }

  /** An `accept` changes nothing. */
  answer (from: string, { type, rid, data }: Frame): void {
    if (type !== 'reply') return
    const { socket, requestId } = this.#open.get(rid)!
    this.#open.delete(rid)
    socket.send(JSON.stringify({ type: 'response', requestId, from, data }))
  }
}

function matching (): Promise<SocketServer> {
  const agents = new Agents()
  const waiting = new Waiting()
  return withNames((socket, name) => { agents.add(socket, name) }, (socket, name, text) => {
    const frame = JSON.parse(text) as Frame
    if (frame.type === 'request') agents.send(waiting.add(socket, name, frame))
    else waiting.answer(name, frame)
  })
}

/** One of two processes: who asks is connected to one, who is asked to the other, which reads nothing of what it passes on. */
const overRedis = (enableAutoPipelining: boolean) => async (argument: string): Promise<SocketServer> => {
  const { url, isAsking } = JSON.parse(argument) as { url: string, isAsking: boolean }
  const [publisher, subscriber] = [new Redis(url, { enableAutoPipelining }), new Redis(url)]
  const agents = new Agents()
  const waiting = new Waiting()
  const [own, other] = isAsking ? ['asking', 'serving'] : ['serving', 'asking']
  await subscriber.subscribe(own)
  subscriber.on('message', (_channel: string, text: string) => {
    if (isAsking) waiting.answer('agent', JSON.parse(text) as Frame)
    else agents.send(text)
  })
  return withNames((socket, name) => { agents.add(socket, name) }, (socket, name, text) => {
    publisher.publish(other, isAsking ? waiting.add(socket, name, JSON.parse(text) as Frame) : text)
  })
}

export const relays = {
  'ws, text passed on': passing(sendText),
  'ws, prepared frame passed on': passing(writeFrame),
  'Socket.IO room, passed on': room,
  'ws, relay by id': byId,
  'ws, relay that matches ids': matching,
  'ws + ioredis relay': overRedis(false),
  'ws + ioredis relay, auto-pipelining': overRedis(true)
} satisfies Record<string, (argument: string) => Promise<SocketServer>>
