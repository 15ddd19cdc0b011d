import { Duplex } from 'node:stream'
import type { WebSocket, WebSocketServer } from 'ws'
import { EncodedMessage, fencePing, protocolPing, type Encoding } from '../../protocol/encoded-message.js'
import { FrameBatch } from '../outbound.js'
import { RawSocket, RawTransport, WebSocketTransport, type TransportClass } from './ws.js'

/** Records what is written to it. */
class Recorder extends Duplex {
  readonly #chunks: Buffer[] = []

  constructor () {
    super()
    // There is nothing to read.
    this.push(null)
  }

  override _write (chunk: Buffer, _encoding: string, done: () => void) {
    this.#chunks.push(Buffer.from(chunk))
    done()
  }

  takeBytes (): Buffer {
    return Buffer.concat(this.#chunks.splice(0))
  }
}

interface Attachable { setSocket (socket: Duplex, head: Buffer, options: object): void }

const isAttachable = (socket: object): socket is Attachable => 'setSocket' in socket && typeof socket.setSocket === 'function'

/** Opens a WebSocket of this server's class that writes into a recorder. */
function attach ({ options: { WebSocket: SocketClass } }: WebSocketServer): { socket: WebSocket, recorder: Recorder } {
  if (SocketClass === undefined) throw new Error('the server has no WebSocket class')
  const recorder = new Recorder()
  const socket: WebSocket = Reflect.construct(SocketClass, [null, undefined, {}])
  if (isAttachable(socket)) socket.setSocket(recorder, Buffer.alloc(0), { maxPayload: 0 })
  return { socket, recorder }
}

/** A message and how ws sends it. */
interface Sample { readonly message: EncodedMessage, readonly encoding: Encoding, readonly send: (socket: WebSocket) => void }

/** Lengths around which the header of a frame changes (RFC 6455 §5.2). */
const lengths = [0, 1, 125, 126, 65_535, 65_536]

function textSample (length: number): Sample {
  const half = length >> 1
  const text = 'é'.repeat(half).padEnd(length - half, 'e')
  return { message: new EncodedMessage(text), encoding: 'json', send: socket => socket.send(text) }
}

function packedSample (length: number): Sample {
  const message = new EncodedMessage(JSON.stringify(['x'.repeat(length)]))
  return { message, encoding: 'msgpack', send: socket => socket.send(message.packed) }
}

const samples: readonly Sample[] = [
  ...lengths.map(textSample),
  ...lengths.map(packedSample),
  { message: protocolPing, encoding: 'json', send: socket => socket.ping() },
  { message: fencePing, encoding: 'json', send: socket => socket.ping(fencePing.text) }
]

/** Whether our frame equals that of ws byte for byte, and whether ws accounts for it while it waits. */
function isSame (socket: WebSocket, recorder: Recorder, { message, encoding, send }: Sample): boolean {
  const frame = new FrameBatch(message, null).bytes(encoding)
  send(socket)
  const expected = recorder.takeBytes()
  recorder.cork()
  RawSocket.of(socket)?.stream.write(frame)
  const waiting = socket.bufferedAmount
  recorder.uncork()
  return frame.equals(expected) && frame.equals(recorder.takeBytes()) && waiting === frame.length && socket.bufferedAmount === 0
}

/**
 * Tests whether frames can be written below the WebSockets of a server, by writing some.
 * @returns the reason why not, or undefined
 */
export function rawSocketFault (server: WebSocketServer): string | undefined {
  try {
    const { socket, recorder } = attach(server)
    socket.on('error', () => {})
    try {
      if (RawSocket.of(socket)?.stream !== recorder) return 'cannot find the stream that the WebSocket writes to'
      return samples.every(sample => isSame(socket, recorder, sample)) ? undefined : 'frames differ'
    } finally {
      recorder.destroy()
    }
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

/** The fastest transport that works with the WebSockets of a server. */
export function transportFor (server: WebSocketServer, log: { warn (details: object, message: string): void }): TransportClass {
  const fault = rawSocketFault(server)
  if (fault === undefined) return RawTransport
  log.warn({ fault }, 'frames are sent one by one, which takes more CPU time: this version of ws is not supported')
  return WebSocketTransport
}
