// Peers of the socket parts: ws by itself, behind a bare @fastify/websocket route, and Socket.IO.
import { createServer } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import jwt from '@fastify/jwt'
import fastifyWebsocket from '@fastify/websocket'
import fastify from 'fastify'
import { Server as SocketIo } from 'socket.io'
import type { WebSocket } from 'ws'
import { host, listen, startRoute, startWs, type OnSocket } from './bare-servers.js'
import { serverFrame } from './frames.js'
import { relays } from './relays.js'
import type { SocketServer } from './socket-server.js'

/** An event like our change of an agent's state, `bytes` long as JSON. */
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

/** The lower limit of the cost: prepared frames in one write. */
function writePrepared (clients: Iterable<WebSocket>, event: Event, events: number) {
  const frames = Buffer.concat(Array.from({ length: events }, () => serverFrame(JSON.stringify(event))))
  for (const client of clients) (client as unknown as { _socket: Socket })._socket.write(frames)
}

const listening: OnSocket = socket => { socket.on('message', () => {}) }

const broadcasting = (start: typeof startWs, broadcast: Broadcast) => async (frameBytes: string): Promise<SocketServer> => {
  const event = eventOf(Number(frameBytes))
  const { port, clients } = await start(listening)
  return { port, emit: events => broadcast(clients, event, events) }
}

/** Acknowledges each request at once. */
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
  // Socket.IO adds the name of the event and two digits: the frame has the same length as those of the others.
  const envelope = '42["agents_delta",{"changes":[]}]'.length - '{"type":"agents_delta","changes":[]}'.length
  const { type, changes } = eventOf(Number(frameBytes) - envelope)
  function emit (events: number) {
    for (let index = 0; index < events; index++) io.to('watchers').emit(type, { changes })
  }
  return { port: await listen(server), emit }
}

/** Verifies the token in the first frame. */
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

/** Peers by their names in the rows. */
export const peers = {
  'ws, JSON.stringify each': broadcasting(startWs, serialiseForEach),
  'ws, one string': broadcasting(startWs, serialiseOnce),
  'ws, prepared frame': broadcasting(startWs, writePrepared),
  'route, one string': broadcasting(startRoute, serialiseOnce),
  'route, prepared frame': broadcasting(startRoute, writePrepared),
  'Socket.IO room': socketIo,
  'ws, parse and answer': () => startWs(acknowledging),
  'bare route': () => startRoute(listening),
  'bare route with a token': tokenRoute,
  ...relays
} satisfies Record<string, (argument: string) => Promise<SocketServer>>

export type PeerKind = keyof typeof peers
