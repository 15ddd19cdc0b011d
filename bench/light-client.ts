// A WebSocket client with little overhead, so that thousands of them leave the second core to the server.
import { connect, type Socket } from 'node:net'
import { clientFrame, FrameReader, opcodes } from './frames.js'

const headEnd = '\r\n\r\n'

function requestOf (path: string): string {
  const headers = [
    'Host: 127.0.0.1',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='
  ]
  return [`GET ${path} HTTP/1.1`, ...headers].join('\r\n') + headEnd
}

export class LightClient {
  readonly socket: Socket
  onText: (payload: Buffer) => void = () => {}
  onClose: () => void = () => {}
  readonly #reader = new FrameReader((payload, opcode) => { this.#onFrame(payload, opcode) })

  private constructor (socket: Socket) { this.socket = socket }

  /** @throws with the status line when the upgrade is refused */
  static open (port: number, path: string): Promise<LightClient> {
    const socket = connect(port, '127.0.0.1').setNoDelay()
    const client = new LightClient(socket)
    return new Promise((resolve, reject) => {
      let head = Buffer.alloc(0)
      function onData (chunk: Buffer) {
        head = Buffer.concat([head, chunk])
        const end = head.indexOf(headEnd)
        if (end < 0) return
        socket.off('data', onData)
        if (!head.subarray(0, 16).includes(' 101 ')) return reject(new Error(head.toString('latin1', 0, head.indexOf('\r\n'))))
        client.readWith(chunk => { client.#reader.push(chunk) })
        resolve(client)
        // Bytes after the head wait until the caller of open() has attached its listeners.
        if (end + headEnd.length < head.length) setImmediate(() => client.#reader.push(head.subarray(end + headEnd.length)))
      }
      socket.on('data', onData).on('error', reject).on('close', () => { client.onClose() })
      socket.write(requestOf(path))
    })
  }

  /** Replaces the listener that reads the socket. */
  readWith (onData: (chunk: Buffer) => void): void {
    this.socket.removeAllListeners('data').on('data', onData)
  }

  send (text: string): void {
    this.socket.write(clientFrame(text))
  }

  destroy (): void {
    this.socket.destroy()
  }

  #onFrame (payload: Buffer, opcode: number) {
    if (opcode === opcodes.text) this.onText(payload)
    if (opcode === opcodes.ping) this.socket.write(clientFrame(payload.toString('latin1'), opcodes.pong))
    if (opcode === opcodes.close) this.socket.end()
  }
}
