import type { EventEmitter } from 'node:events'
import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { WebSocket, WebSocketServer } from 'ws'
import { closeCodes } from '../../protocol/codes.js'
import { opcodes, type EncodedMessage, type Encoding } from '../../protocol/encoded-message.js'
import type { Connection } from '../connection.js'
import type { FrameBatch, Traffic, Transport } from '../outbound.js'

/** The parts of a WebSocket of ws that have no public name. */
interface Internals { readonly _socket?: Socket | null, readonly _sender?: Sender, readonly _receiver?: Receiver }
interface Sender { readonly _bufferedBytes?: number }
interface Bounded { _maxPayload?: unknown }
interface Receiver extends Bounded { _extensions?: Record<string, Bounded> }

const nothing = Buffer.alloc(0)
/** The `readyState` of an open WebSocket. */
const open = 1

/** Sends every message through ws. */
export class WebSocketTransport implements Transport {
  protected readonly socket: WebSocket
  /** Messages that ws has not written yet, and the callback for when there are none. */
  #unsent = 0
  #drained: (() => void) | null = null

  constructor (socket: WebSocket) {
    this.socket = socket
  }

  get bufferedAmount () { return this.socket.bufferedAmount }
  get isOpen () { return this.socket.readyState === open }

  write (batch: FrameBatch, encoding: Encoding, traffic: Traffic): void {
    for (const message of batch.messages()) {
      this.#send(message, encoding)
      traffic.wrote(1, message.size(encoding))
    }
  }

  whenDrained (drained: () => void): void {
    this.#drained = drained
  }

  together (write: () => void): void { write() }

  close (code: number, reason: string): void { this.socket.close(code, reason) }
  terminate (): void { this.socket.terminate() }
  pause (): void { this.socket.pause() }
  resume (): void { this.socket.resume() }

  #send (message: EncodedMessage, encoding: Encoding) {
    this.#unsent++
    const sent = (error?: Error | null) => { this.#sent(error) }
    if (message.opcode === opcodes.ping) this.socket.ping(message.text, undefined, sent)
    else if (message.isPacked(encoding)) this.socket.send(message.packed, { binary: true }, sent)
    else this.socket.send(message.text, sent)
  }

  #sent (error?: Error | null) {
    const drained = this.#drained
    if (--this.#unsent > 0 || drained === null || error) return
    this.#drained = null
    drained()
  }
}

/** The stream below an open WebSocket, for complete frames that ws did not make. */
export class RawSocket {
  readonly stream: Duplex
  readonly #sender: Sender

  private constructor (stream: Duplex, sender: Sender) {
    this.stream = stream
    this.#sender = sender
  }

  /** @returns undefined if an extension transforms the frames of the socket, or if its internals are unknown */
  static of (socket: WebSocket & Internals): RawSocket | undefined {
    const { _socket: stream, _sender: sender } = socket
    const isKnown = stream && sender?._bufferedBytes === 0
    return isKnown && socket.extensions === '' ? new RawSocket(stream, sender) : undefined
  }

  /** Whether ws itself is not sending, so that a write now keeps the order of frames. */
  get isFree () { return this.#sender._bufferedBytes === 0 }
}

/** Writes complete frames to the stream below ws, all frames of a tick in one write, while ws itself is not sending. */
export class RawTransport extends WebSocketTransport {
  readonly #raw: RawSocket | undefined

  constructor (socket: WebSocket) {
    super(socket)
    this.#raw = RawSocket.of(socket)
  }

  override get bufferedAmount () { return this.#raw?.isFree ? this.#raw.stream.writableLength : super.bufferedAmount }

  override write (batch: FrameBatch, encoding: Encoding, traffic: Traffic): void {
    if (!this.#raw?.isFree) return super.write(batch, encoding, traffic)
    const bytes = batch.bytes(encoding)
    this.#raw.stream.write(bytes)
    traffic.wrote(batch.count, bytes.length)
  }

  override whenDrained (drained: () => void): void {
    // The callback of an empty write runs after everything before it was written.
    if (this.#raw?.isFree) this.#raw.stream.write(nothing, error => { if (!error) drained() })
    else super.whenDrained(drained)
  }

  override together (write: () => void): void {
    this.#raw?.stream.cork()
    try { write() } finally { this.#raw?.stream.uncork() }
  }
}

export type TransportClass = typeof WebSocketTransport

/** The largest frame that ws accepts; it closes the socket with 1009 on a larger one. */
export const hardPayloadLimit = 262_144

const owner = Symbol('agent-registry connection')
type OwnedSocket = WebSocket & { [owner]?: Connection }

// Shared by all sockets: closures for each of them would be a large part of the memory of an idle connection.
function onMessage (this: OwnedSocket, data: Buffer, isBinary: boolean) { this[owner]?.inbound.receive(data, isBinary) }
function onPing (this: OwnedSocket) { this[owner]?.inbound.pinged() }
function onPong (this: OwnedSocket, data: Buffer) { this[owner]?.inbound.ponged(data) }
function onClose (this: OwnedSocket, code: number) { this[owner]?.closed(code !== closeCodes.abnormal) }

/**
 * Passes the events of a socket to its connection. Takes the socket over from the @fastify/websocket that accepted it,
 * which may be the host's: limits the frame size, and removes the socket from the set of clients, to which the host may
 * broadcast and which is closed without a code on shutdown.
 * @returns whether ws limits the frame size
 */
export function adopt (server: WebSocketServer, socket: WebSocket & Internals, connection: Connection): boolean {
  const emitter: EventEmitter = Object.assign(socket, { [owner]: connection })
  emitter.on('message', onMessage).on('ping', onPing).on('pong', onPong).on('close', onClose)
  server.clients.delete(socket)
  // The host's error handler would destroy the socket before ws has sent its close frame.
  emitter.removeAllListeners('error').on('error', ignoreSocketError)
  const { _receiver: receiver, _socket: stream } = socket
  if (stream) releaseUpgrade(stream)
  // The size of a compressed frame is checked a second time after it is inflated.
  return [receiver, ...Object.values(receiver?._extensions ?? {})].map(limitPayload).every(Boolean)
}

/** ws closes the socket with the right code itself. */
export function ignoreSocketError (): void {}

function limitPayload (part: Bounded | undefined): boolean {
  if (typeof part?._maxPayload !== 'number') return false
  if (part._maxPayload === 0 || part._maxPayload > hardPayloadLimit) part._maxPayload = hardPayloadLimit
  return true
}

const deadline = Symbol('agent-registry upgrade')
/** `_httpMessage` is the response to an upgrade that was not accepted yet. */
type UpgradingSocket = Socket & { [deadline]?: NodeJS.Timeout | undefined, _httpMessage?: ServerResponse }

/** Destroys a socket whose upgrade is not accepted in time. The timeout of the socket itself would be checked on every write. */
export function limitUpgrade (socket: UpgradingSocket, timeoutMs: number): void {
  socket[deadline] = setTimeout(() => { socket.destroy() }, timeoutMs).unref()
  socket.once('close', stopDeadline)
}

/** The response that @fastify/websocket attaches to a socket until its upgrade is accepted. */
export function responseOf (socket: UpgradingSocket): ServerResponse | undefined {
  return socket._httpMessage
}

/** Detaches the request and response of an accepted upgrade, which would take more memory than the rest of the socket. */
function releaseUpgrade (socket: UpgradingSocket) {
  stopDeadline.call(socket)
  responseOf(socket)?.detachSocket(socket)
}

function stopDeadline (this: UpgradingSocket) {
  clearTimeout(this[deadline])
  this[deadline] = undefined
  this.off('close', stopDeadline)
}
