import type { WebSocket, WebSocketServer } from 'ws'
import type { FrameBatch, Traffic, Transport } from '../outbound.js'
import { type Encoding, opcodes, type EncodedMessage } from '../../protocol/encoded-message.js'
import type { Log } from '../../dashboard/audit.js'
import { RawSocket, rawSocketFault } from './raw.js'

const nothing = Buffer.alloc(0)
/** `readyState` of a WebSocket that is open. */
const open = 1

/** `ws` as a connection sees it: every message goes through ws. */
export class WebSocketTransport implements Transport {
  protected readonly socket: WebSocket
  /** Sends that ws has not done yet, and who waits for them. */
  #onTheWay = 0
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
    this.#onTheWay++
    const sent = (error?: Error | null) => { this.#sent(error) }
    if (message.opcode === opcodes.ping) this.socket.ping(message.text, undefined, sent)
    else if (message.isPacked(encoding)) this.socket.send(message.packed, { binary: true }, sent)
    else this.socket.send(message.text, sent)
  }

  #sent (error?: Error | null) {
    const drained = this.#drained
    if (--this.#onTheWay > 0 || drained === null || error) return
    this.#drained = null
    drained()
  }
}

/** Writes frames that are ready below the WebSocket, all of a tick at once, whenever ws lets it. */
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
    // Comes to its turn behind all that waits.
    if (this.#raw?.isFree) this.#raw.stream.write(nothing, error => { if (!error) drained() })
    else super.whenDrained(drained)
  }

  override together (write: () => void): void {
    this.#raw?.stream.cork()
    try { write() } finally { this.#raw?.stream.uncork() }
  }
}

export type TransportClass = typeof WebSocketTransport

/** The fastest transport that the WebSockets of this server can have. */
export function transportFor (server: WebSocketServer, log: Log): TransportClass {
  const fault = rawSocketFault(server)
  if (fault === undefined) return RawTransport
  log.warn({ fault }, 'frames are sent one by one, which takes more of the processor: this version of ws is not known')
  return WebSocketTransport
}
