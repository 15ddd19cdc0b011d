import { EventEmitter } from 'node:events'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import fastifyWebsocket, { type WebsocketPluginOptions } from '@fastify/websocket'
import type { FastifyInstance } from 'fastify'
import type { WebSocket } from 'ws'
import { problem } from '../src/errors.js'

/** Largest frame that ws takes in at all; it closes with 1009 over it. */
export const hardPayloadLimit = 262_144

/** How long a peer has to answer a close frame. */
const closeTimeout = 5_000

/** What compresses little and keeps little: without a context, and with a window of 4 KiB, which a client has to take. */
const compression = {
  threshold: 1024,
  serverNoContextTakeover: true,
  clientNoContextTakeover: true,
  serverMaxWindowBits: 12,
  zlibDeflateOptions: { level: 1, memLevel: 5, chunkSize: 4096 },
  zlibInflateOptions: { chunkSize: 4096 }
}

export interface WebSocketHostOptions {
  /** The paths that are ours. */
  paths: ReadonlySet<string>
  /** How long an upgrade may take until it is accepted. */
  timeoutMs: number
  /** Whether permessage-deflate (RFC 7692) is taken where a client offers it. */
  isCompressing: boolean
}

/** @fastify/websocket marks upgrades that it has sent through the router. */
function isRouted (request: IncomingMessage): boolean {
  return Object.getOwnPropertySymbols(request).some(symbol => symbol.description === 'ws-socket')
}

/**
 * Makes WebSocket routes possible in `scope`. A host that has @fastify/websocket in this scope keeps it: its plugin
 * serves our routes too. Otherwise we register our own, which must not send an upgrade through the router that another
 * one in the same server has sent already, nor take upgrades that are somebody else's.
 */
export async function provideWebSocket (scope: FastifyInstance, options: WebSocketHostOptions): Promise<void> {
  const { paths } = options
  await provideServer(scope, options)
  // Otherwise such a socket would be opened, closed without a word, and its URL logged with the query.
  scope.addHook('onRequest', function refuseUpgrade (request, _reply, done) {
    const isElsewhere = request.ws && !paths.has(request.routeOptions.url ?? '')
    done(isElsewhere ? problem('request-error', 'There is no WebSocket here') : undefined)
  })
  // @fastify/websocket does so only for what its own hook has seen, which a hook of the host may refuse before.
  scope.addHook('onResponse', function closeRefused (request, _reply, done) {
    if (request.raw.headers.upgrade !== undefined && !request.ws && isRouted(request.raw)) request.raw.socket.destroy()
    done()
  })
}

async function provideServer (scope: FastifyInstance, { paths, timeoutMs, isCompressing }: WebSocketHostOptions): Promise<void> {
  if (scope.hasDecorator('websocketServer')) return
  const upgrades = new EventEmitter()
  // closeTimeout is newer than the types of ws.
  const serverOptions: WebsocketPluginOptions['options'] & { closeTimeout: number } = {
    maxPayload: hardPayloadLimit,
    closeTimeout,
    perMessageDeflate: isCompressing && compression,
    server: upgrades as unknown as Server
  }
  await scope.register(fastifyWebsocket, {
    options: serverOptions,
    errorHandler: ignoreSocketError
  })

  function forward (request: IncomingMessage, socket: Socket, head: Buffer) {
    if (isRouted(request)) return
    const isOurs = paths.has((request.url ?? '').split('?', 1)[0]!)
    if (!isOurs && !isNobodys(scope.server)) return
    // A route of the host may never answer, and nobody else ends such a socket: it would hold up the end of the host.
    endUnlessAccepted(socket, timeoutMs)
    if (!upgrades.emit('upgrade', request, socket, head)) return refuse(socket)
    answerOf(socket)?.once('finish', () => socket.destroySoon())
  }
  forward.isRegistry = true

  // At the end of the start, so that it runs after the listeners of every other plugin.
  scope.addHook('onReady', async function listenForUpgrades () { scope.server.on('upgrade', forward) })
  scope.addHook('onClose', async function stopListening () { scope.server.off('upgrade', forward) })
}

const deadline = Symbol('agent-registry upgrade')
type Upgrading = Socket & { [deadline]?: NodeJS.Timeout | undefined }

/** Not by the timeout of the socket, which would be looked at with each write for as long as the socket lives. */
function endUnlessAccepted (socket: Upgrading, timeoutMs: number) {
  socket[deadline] = setTimeout(() => { socket.destroy() }, timeoutMs).unref()
  socket.once('close', stopWaiting)
}

function stopWaiting (this: Upgrading) {
  clearTimeout(this[deadline])
  this[deadline] = undefined
  this.off('close', stopWaiting)
}

/** The answer that @fastify/websocket puts on a socket until it is accepted. */
function answerOf (socket: Socket): ServerResponse | undefined {
  return (socket as { _httpMessage?: ServerResponse })._httpMessage
}

/** While the server closes nobody takes upgrades any more, and a socket without an answer would hold it up. */
function refuse (socket: Socket) {
  socket.on('error', () => socket.destroy())
  socket.end('HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n', () => socket.destroy())
}

/** Whether only registries listen: then an upgrade of an unknown path is answered by the router, with 404. */
function isNobodys (server: Server): boolean {
  return server.listeners('upgrade').every(listener => 'isRegistry' in listener)
}

function ignoreSocketError () { /* ws closes the socket with the right code by itself */ }

interface Bounded { _maxPayload?: unknown }
interface Receiver extends Bounded { _extensions?: Record<string, Bounded> }

/**
 * Takes a socket over from whichever @fastify/websocket accepted it: bounds its frames and removes it from the host's
 * set of clients, which the host may broadcast to, and closes without a code on shutdown. The host's error handler cuts
 * the socket off before ws's close frame has left.
 * @returns whether the bound could be set
 */
export function adopt (scope: FastifyInstance, socket: WebSocket): boolean {
  scope.websocketServer.clients.delete(socket)
  socket.removeAllListeners('error').on('error', ignoreSocketError)
  const { _receiver: receiver, _socket: raw } = socket as unknown as { _receiver?: Receiver, _socket?: Socket }
  if (raw) release(raw)
  // What was compressed is measured a second time, where it is inflated.
  return [receiver, ...Object.values(receiver?._extensions ?? {})].map(bound).every(Boolean)
}

/** Of an upgrade that was accepted nothing is needed any more: request and answer go, which are more than the rest. */
function release (socket: Socket) {
  stopWaiting.call(socket)
  answerOf(socket)?.detachSocket(socket)
}

function bound (part: Bounded | undefined): boolean {
  if (typeof part?._maxPayload !== 'number') return false
  if (part._maxPayload === 0 || part._maxPayload > hardPayloadLimit) part._maxPayload = hardPayloadLimit
  return true
}
