import { EventEmitter } from 'node:events'
import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'
import fastifyWebsocket, { type WebsocketPluginOptions } from '@fastify/websocket'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { problem } from '../src/errors.js'
import { hardPayloadLimit, ignoreSocketError, limitUpgrade, responseOf } from '../src/sockets/transport/ws.js'

/** Time that a client has to answer a close frame. */
const closeTimeout = 5_000

/** Compression that uses little memory: no context takeover, and a window of 4 KiB, which the client must accept. */
const compression = {
  threshold: 1024,
  serverNoContextTakeover: true,
  clientNoContextTakeover: true,
  serverMaxWindowBits: 12,
  zlibDeflateOptions: { level: 1, memLevel: 5, chunkSize: 4096 },
  zlibInflateOptions: { chunkSize: 4096 }
}

interface WebSocketOptions {
  /** The paths of the tiers. */
  paths: ReadonlySet<string>
  /** Time in which an upgrade must be accepted. */
  timeoutMs: number
  /** Whether permessage-deflate (RFC 7692) is accepted if a client offers it. */
  isCompressing: boolean
}

/** Whether @fastify/websocket has passed an upgrade to the router. */
function isRouted (request: IncomingMessage): boolean {
  return Object.getOwnPropertySymbols(request).some(symbol => symbol.description === 'ws-socket')
}

/**
 * Makes WebSocket routes possible. If the host has registered @fastify/websocket in this scope, that plugin serves the
 * routes of the registry too. Otherwise the registry registers its own, which ignores upgrades that another instance has
 * routed and upgrades of other paths.
 */
async function websocket (scope: FastifyInstance, options: WebSocketOptions): Promise<void> {
  const { paths } = options
  if (!scope.hasDecorator('websocketServer')) await registerServer(scope, options)
  // Such a socket would be accepted, closed without a code, and its URL logged with the query.
  scope.addHook('onRequest', function refuseUpgrade (request, _reply, done) {
    const isElsewhere = request.ws && !paths.has(request.routeOptions.url ?? '')
    done(isElsewhere ? problem('request-error', 'This path does not accept WebSocket upgrades') : undefined)
  })
  // @fastify/websocket closes only the refused upgrades that its own hook has seen; a hook of the host may run before it.
  scope.addHook('onResponse', function closeRefused (request, _reply, done) {
    if (request.raw.headers.upgrade !== undefined && !request.ws && isRouted(request.raw)) request.raw.socket.destroy()
    done()
  })
}

async function registerServer (scope: FastifyInstance, { paths, timeoutMs, isCompressing }: WebSocketOptions): Promise<void> {
  const upgrades = new EventEmitter()
  // The types of ws lack closeTimeout, and it uses only the events of a server.
  const serverOptions: WebsocketPluginOptions['options'] & { closeTimeout: number } = {
    maxPayload: hardPayloadLimit,
    closeTimeout,
    perMessageDeflate: isCompressing && compression,
    server: upgrades as Server
  }
  await scope.register(fastifyWebsocket, { options: serverOptions, errorHandler: ignoreSocketError })

  function forward (request: IncomingMessage, socket: Socket, head: Buffer) {
    if (isRouted(request)) return
    const [path = ''] = (request.url ?? '').split('?', 1)
    if (!paths.has(path) && !hasOnlyRegistries(scope.server)) return
    // A route of the host may never reply; an open socket would delay the host's shutdown.
    limitUpgrade(socket, timeoutMs)
    if (!upgrades.emit('upgrade', request, socket, head)) return refuse(socket)
    responseOf(socket)?.once('finish', () => socket.destroySoon())
  }
  forward.isRegistry = true

  // The listener is added last, so that it runs after those of all other plugins.
  scope.addHook('onReady', async function listenForUpgrades () { scope.server.on('upgrade', forward) })
  scope.addHook('onClose', async function stopListening () { scope.server.off('upgrade', forward) })
}

/** Refuses an upgrade while the server closes: a socket without a response would delay the shutdown. */
function refuse (socket: Socket) {
  socket.on('error', () => socket.destroy())
  const head = ['HTTP/1.1 503 Service Unavailable', 'Connection: close', 'Retry-After: 5', 'Content-Length: 0']
  socket.end(`${head.join('\r\n')}\r\n\r\n`, () => socket.destroy())
}

/** Whether only registries listen for upgrades, so that the router has to answer those of unknown paths with 404. */
function hasOnlyRegistries (server: Server): boolean {
  return server.listeners('upgrade').every(listener => 'isRegistry' in listener)
}

export default fp(websocket, { name: 'agent-registry-websocket', fastify: '5.x' })
