import type { WebSocket } from 'ws'
import type { Transport } from '../src/sockets/transport.js'

/** `ws` as a connection sees it. */
export function transportOf (socket: WebSocket): Transport {
  return {
    get bufferedAmount () { return socket.bufferedAmount },
    get isOpen () { return socket.readyState === socket.OPEN },
    send (text, sent) { socket.send(text, sent && (() => sent())) },
    ping () { socket.ping() },
    close (code, reason) { socket.close(code, reason) },
    terminate () { socket.terminate() },
    pause () { socket.pause() },
    resume () { socket.resume() }
  }
}
