// WebSocket frames without a library (RFC 6455 §5.2): for prepared frames of a server, and for clients with little overhead.

export const opcodes = { text: 1, close: 8, ping: 9, pong: 10 } as const

function header (opcode: number, length: number, mask: number): Buffer {
  const first = 0x80 | opcode
  if (length < 126) return Buffer.from([first, mask | length])
  if (length < 65_536) return Buffer.from([first, mask | 126, length >> 8, length & 0xff])
  const long = Buffer.from([first, mask | 127, 0, 0, 0, 0, 0, 0, 0, 0])
  long.writeUInt32BE(length, 6)
  return long
}

/** A text frame as a server sends it. */
export function serverFrame (text: string): Buffer {
  const payload = Buffer.from(text)
  return Buffer.concat([header(opcodes.text, payload.length, 0), payload])
}

/** A frame as a client sends it, masked with zeros, which costs the server the same as any other mask. */
export function clientFrame (text: string, opcode: number = opcodes.text): Buffer {
  const payload = Buffer.from(text)
  return Buffer.concat([header(opcode, payload.length, 0x80), Buffer.alloc(4), payload])
}

/** The client frame of an ASCII text as a string of its bytes, to be joined with others and written as `latin1`. */
export function frameText (text: string): string {
  return header(opcodes.text, text.length, 0x80).toString('latin1') + '\0\0\0\0' + text
}

interface Head { opcode: number, start: number, length: number }

/** @returns undefined when the head is incomplete */
function headAt (bytes: Buffer, at: number): Head | undefined {
  if (bytes.length < at + 2) return undefined
  const opcode = bytes[at]! & 0x0f
  const short = bytes[at + 1]!
  if (short < 126) return { opcode, start: at + 2, length: short }
  if (bytes.length < at + (short === 126 ? 4 : 10)) return undefined
  return short === 126
    ? { opcode, start: at + 4, length: bytes.readUInt16BE(at + 2) }
    : { opcode, start: at + 10, length: bytes.readUInt32BE(at + 6) }
}

/** Splits the output of a server into frames. Fragmented messages are not supported. */
export class FrameReader {
  readonly #onFrame: (payload: Buffer, opcode: number) => void
  #rest: Buffer[] = []
  #size = 0
  #wanted = 0

  constructor (onFrame: (payload: Buffer, opcode: number) => void) {
    this.#onFrame = onFrame
  }

  push (chunk: Buffer): void {
    this.#rest.push(chunk)
    this.#size += chunk.length
    // Join a large message once, and not again with each chunk.
    if (this.#size < this.#wanted) return
    const bytes = this.#rest.length === 1 ? chunk : Buffer.concat(this.#rest)
    const read = this.#read(bytes)
    this.#rest = read === bytes.length ? [] : [bytes.subarray(read)]
    this.#size = bytes.length - read
  }

  #read (bytes: Buffer): number {
    let at = 0
    this.#wanted = 0
    for (let head = headAt(bytes, at); head; head = headAt(bytes, at)) {
      const end = head.start + head.length
      if (end > bytes.length) {
        this.#wanted = end - at
        break
      }
      this.#onFrame(bytes.subarray(head.start, end), head.opcode)
      at = end
    }
    return at
  }
}
