// Servers with sockets only: ws by itself, and behind a @fastify/websocket route.
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import fastifyWebsocket from '@fastify/websocket'
import fastify from 'fastify'
import { WebSocketServer, type WebSocket } from 'ws'

export const host = '127.0.0.1'

export type OnSocket = (socket: WebSocket) => void
export interface BareServer { port: number, clients: Set<WebSocket> }

export async function listen (server: Server): Promise<number> {
  await new Promise<void>(resolve => { server.listen(0, host, resolve) })
  return (server.address() as AddressInfo).port
}

export async function startWs (onSocket: OnSocket): Promise<BareServer> {
  const server = createServer()
  const { clients } = new WebSocketServer({ server }).on('connection', onSocket)
  return { port: await listen(server), clients }
}

export async function startRoute (onSocket: OnSocket): Promise<BareServer> {
  const app = fastify()
  await app.register(fastifyWebsocket)
  app.get('/', { websocket: true }, onSocket)
  await app.listen({ port: 0, host })
  return { port: (app.server.address() as AddressInfo).port, clients: app.websocketServer.clients }
}
