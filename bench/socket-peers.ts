// What ours is compared with: ws by itself, behind a bare @fastify/websocket route, and Socket.IO.
import { createServer } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import jwt from '@fastify/jwt'
import fastifyWebsocket from '@fastify/websocket'
import fastify from 'fastify'
import { Server as SocketIo } from 'socket.io'
import type { WebSocket } from 'ws'
import { host, listen, withRoute, withWs, type OnSocket } from './bare-servers.js'
import { serverFrame } from './frames.js'
import { relays } from './relays.js'
import type { SocketServer } from './socket-server.js'

/** What is told: as the change of an agent's state looks here, `bytes` long as JSON. */
function eventOf (bytes: number) {
  const change = { revision: 'epoch-id:10000', op: 'state', agent_id: '', state: 'draining', previous: 'alive', reason: 'requested' }
  const event = { type: 'agents_delta', changes: [change] }
  change.agent_id = 'subject'.padEnd(bytes - JSON.stringify(event).length, '-')
  return event
}

type Event = ReturnType<typeof eventOf>
type Broadcast = (clients: Iterable<WebSocket>, event: Event, events: number) => void

function serialiseForEach (clients: Iterable<WebSocket>, event: Event, events: number) {
  for (let index = 0; index < events; index++) for (const client of clients) client.send(JSON.stringify(event))
}

function serialiseOnce (clients: Iterable<WebSocket>, event: Event, events: number) {
  for (let index = 0; index < events; index++) {
    const text = JSON.stringify(event)
    for (const client of clients) client.send(text)
  }
}

/** The limit: what is to be written is there, and is written as one. */
function writePrepared (clients: Iterable<WebSocket>, event: Event, events: number) {
  const frames = Buffer.concat(Array.from({ length: events }, () => serverFrame(JSON.stringify(event))))
  for (const client of clients) (client as unknown as { _socket: Socket })._socket.write(frames)
}

const listening: OnSocket = socket => { socket.on('message', () => {}) }

const broadcasting = (start: typeof withWs, broadcast: Broadcast) => async (frameBytes: string): Promise<SocketServer> => {
  const event = eventOf(Number(frameBytes))
  const { port, clients } = await start(listening)
  return { port, emit: events => broadcast(clients, event, events) }
}

/** Answers each request at once. */
const acknowledging: OnSocket = socket => {
  socket.on('message', (data: Buffer) => {
    const { requestId } = JSON.parse(data.toString()) as { requestId: string }
    socket.send(JSON.stringify({ type: 'ack', requestId }))
  })
}

async function socketIo (frameBytes: string): Promise<SocketServer> {
  const server = createServer()
  const io = new SocketIo(server, { transports: ['websocket'], perMessageDeflate: false, serveClient: false, pingInterval: 600_000 })
  io.on('connection', socket => { socket.join('watchers') })
  // Besides the event it sends its name and two digits: as many bytes as the others all the same.
  const { type, changes } = eventOf(Number(frameBytes) - '42["agents_delta",{"changes":[]}]'.length + '{"type":"agents_delta","changes":[]}'.length)
  function emit (events: number) {
    for (let index = 0; index < events; index++) io.to('watchers').emit(type, { changes })
  }
  return { port: await listen(server), emit }
}

/** Lets in whoever shows one of `tokens` in the first frame. */
async function tokenRoute (secret: string): Promise<SocketServer> {
  const app = fastify()
  await app.register(jwt, { secret })
  await app.register(fastifyWebsocket)
  app.get('/', { websocket: true }, socket => {
    socket.once('message', (data: Buffer) => {
      const { token } = JSON.parse(data.toString()) as { token: string }
      const { agent_id: id, role } = app.jwt.verify<{ agent_id: string, role: string }>(token)
      socket.send(JSON.stringify({ type: 'auth_success', agent_id: id, role }))
    })
  })
  await app.listen({ port: 0, host })
  return { port: (app.server.address() as AddressInfo).port }
}

/** Each by the name that it has in the rows. */
export const peers = {
  'ws, JSON.stringify each': broadcasting(withWs, serialiseForEach),
  'ws, one string': broadcasting(withWs, serialiseOnce),
  'ws, prepared frame': broadcasting(withWs, writePrepared),
  'route, one string': broadcasting(withRoute, serialiseOnce),
  'route, prepared frame': broadcasting(withRoute, writePrepared),
  'Socket.IO room': socketIo,
  'ws, parse and answer': () => withWs(acknowledging),
  'bare route': () => withRoute(listening),
  'bare route with a token': tokenRoute,
  ...relays
} satisfies Record<string, (argument: string) => Promise<SocketServer>>

export type PeerKind = keyof typeof peers
