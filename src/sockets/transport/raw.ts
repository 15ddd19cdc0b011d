import { Duplex } from 'node:stream'
import type { WebSocket, WebSocketServer } from 'ws'
import { FrameBatch } from '../outbound.js'
import { fencePing, EncodedMessage, protocolPing, type Encoding } from '../../protocol/encoded-message.js'

interface Sender { readonly _bufferedBytes?: number }
/** The parts of a WebSocket of `ws` that have no public name. */
interface Internals { _socket?: Duplex | null, _sender?: Sender }

/** Lengths around which the header of a frame changes (RFC 6455 §5.2). */
const lengths = [0, 1, 125, 126, 65_535, 65_536]

/** The stream below an open WebSocket, for whole frames made by us. */
export class RawSocket {
  readonly stream: Duplex
  readonly #sender: Sender

  private constructor (stream: Duplex, sender: Sender) {
    this.stream = stream
    this.#sender = sender
  }

  /** @returns undefined for one whose frames an extension changes, or that does not look as expected */
  static of (socket: WebSocket): RawSocket | undefined {
    const { _socket, _sender } = socket as unknown as Internals
    const isKnown = _socket && _sender?._bufferedBytes === 0
    return isKnown && socket.extensions === '' ? new RawSocket(_socket, _sender) : undefined
  }

  /** Whether what is written now stands where ws's own frames stand: its sender is not at work. */
  get isFree () { return this.#sender._bufferedBytes === 0 }
}

/** Takes what is written to it. */
class Recorder extends Duplex {
  readonly chunks: Buffer[] = []

  constructor () {
    super()
    // There is nothing to read.
    this.push(null)
  }

  override _write (chunk: Buffer, _encoding: string, done: () => void) {
    this.chunks.push(Buffer.from(chunk))
    done()
  }

  taken (): Buffer {
    return Buffer.concat(this.chunks.splice(0))
  }
}

interface Attachable { setSocket (socket: Duplex, head: Buffer, options: object): void }
type WebSocketClass = new (address: null, protocols?: undefined, options?: object) => WebSocket

/** A WebSocket of this server that is open and writes into a recorder. */
function attach (server: WebSocketServer): { socket: WebSocket, recorder: Recorder } {
  const { WebSocket: OfServer } = server.options as unknown as { WebSocket: WebSocketClass }
  const recorder = new Recorder()
  const socket = new OfServer(null, undefined, {});
  (socket as unknown as Attachable).setSocket(recorder, Buffer.alloc(0), { maxPayload: 0 })
  return { socket, recorder }
}

const samples: ReadonlyArray<{ message: EncodedMessage, encoding: Encoding, send: (socket: WebSocket) => void }> = [
  ...lengths.map(length => 'é'.repeat(length >> 1).padEnd(length - (length >> 1), 'e')).map(text => ({ message: new EncodedMessage(text), encoding: 'json' as const, send: (socket: WebSocket) => socket.send(text) })),
  ...lengths.map(length => new EncodedMessage(JSON.stringify(['x'.repeat(length)]))).map(message => ({ message, encoding: 'msgpack' as const, send: (socket: WebSocket) => socket.send(message.packed) })),
  { message: protocolPing, encoding: 'json', send: socket => socket.ping() },
  { message: fencePing, encoding: 'json', send: socket => socket.ping(fencePing.text) }
]

/** Whether a frame of ours is what ws sends for the same message, byte for byte, and ws knows while it waits. */
function isSame (socket: WebSocket, recorder: Recorder, { message, encoding, send }: typeof samples[number]): boolean {
  const frame = new FrameBatch(message, null).bytes(encoding)
  send(socket)
  const theirs = recorder.taken()
  recorder.cork()
  RawSocket.of(socket)!.stream.write(frame)
  const waiting = socket.bufferedAmount
  recorder.uncork()
  return frame.equals(theirs) && frame.equals(recorder.taken()) && waiting === frame.length && socket.bufferedAmount === 0
}

/**
 * Tries whether frames of ours may be written below the WebSockets of this server, by writing them there.
 * @returns why not
 */
export function rawSocketFault (server: WebSocketServer): string | undefined {
  try {
    const { socket, recorder } = attach(server)
    socket.on('error', () => {})
    try {
      if (RawSocket.of(socket)?.stream !== recorder) return 'the stream below a socket is not where it was'
      return samples.every(sample => isSame(socket, recorder, sample)) ? undefined : 'frames differ'
    } finally {
      recorder.destroy()
    }
  } catch (error) {
    return (error as Error).message
  }
}
