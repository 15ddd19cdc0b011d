import { pack } from './message-pack.js'

/** The opcodes of RFC 6455 §5.2 that the server sends. */
export const opcodes = { text: 1, binary: 2, ping: 9 } as const
type Opcode = typeof opcodes[keyof typeof opcodes]

const isLast = 0x80
const largestShort = 125
const largestMedium = 0xffff

/** Size of the header of an unmasked frame, in bytes. */
export function headerSize (payloadSize: number): number {
  return payloadSize <= largestShort ? 2 : payloadSize <= largestMedium ? 4 : 10
}

/** Writes the header of an unmasked, unfragmented message (RFC 6455 §5.2). @returns the offset of its payload */
function writeHeader (target: Buffer, at: number, opcode: Opcode, payloadSize: number): number {
  target[at] = isLast | opcode
  if (payloadSize <= largestShort) {
    target[at + 1] = payloadSize
    return at + 2
  }
  if (payloadSize <= largestMedium) {
    target[at + 1] = 126
    return target.writeUInt16BE(payloadSize, at + 2)
  }
  target[at + 1] = 127
  target.writeUInt32BE(0, at + 2)
  return target.writeUInt32BE(payloadSize, at + 6)
}

/** The encoding of the frames of a connection: JSON text, or MessagePack if it was negotiated. */
export type Encoding = 'json' | 'msgpack'

const isObject = (text: string) => text.charCodeAt(0) === 0x7b || text.charCodeAt(0) === 0x5b

/** A message for one or many sockets. Each encoded form is created once, on first use. */
export class EncodedMessage {
  readonly text: string
  readonly opcode: Opcode
  #bytes = -1
  #packed: Uint8Array | undefined
  #frame: Buffer | undefined
  #packedFrame: Buffer | undefined

  /** @param text JSON, or one of the bare words `ping` and `pong`, which stay text in every encoding */
  constructor (text: string, opcode: Opcode = opcodes.text) {
    this.text = text
    this.opcode = opcode
  }

  isPacked (encoding: Encoding): boolean {
    return encoding === 'msgpack' && isObject(this.text)
  }

  /** The message as MessagePack. */
  get packed (): Uint8Array {
    return (this.#packed ??= pack(this.text))
  }

  /** Size of the frame in bytes, header included. */
  size (encoding: Encoding): number {
    const payload = this.#payloadSize(encoding)
    return headerSize(payload) + payload
  }

  /** The whole frame. It is the same for every socket, because a server does not mask (RFC 6455 §5.1). */
  frame (encoding: Encoding): Buffer {
    if (this.isPacked(encoding)) return (this.#packedFrame ??= this.#make(encoding))
    return (this.#frame ??= this.#make(encoding))
  }

  writeTo (target: Buffer, at: number, encoding: Encoding): void {
    const made = this.isPacked(encoding) ? this.#packedFrame : this.#frame
    if (made) made.copy(target, at)
    else this.#write(target, at, encoding)
  }

  #payloadSize (encoding: Encoding): number {
    if (this.isPacked(encoding)) return this.packed.length
    if (this.#bytes < 0) this.#bytes = Buffer.byteLength(this.text)
    return this.#bytes
  }

  #make (encoding: Encoding): Buffer {
    const frame = Buffer.allocUnsafe(this.size(encoding))
    this.#write(frame, 0, encoding)
    return frame
  }

  #write (target: Buffer, at: number, encoding: Encoding) {
    const isPacked = this.isPacked(encoding)
    const start = writeHeader(target, at, isPacked ? opcodes.binary : this.opcode, this.#payloadSize(encoding))
    if (isPacked) target.set(this.packed, start)
    else target.write(this.text, start)
  }
}

/** Messages with constant content. */
export const textPing = new EncodedMessage('ping')
export const textPong = new EncodedMessage('pong')
export const protocolPing = new EncodedMessage('', opcodes.ping)
/** A protocol ping whose payload distinguishes its pong from others. */
export const fencePing = new EncodedMessage('fence', opcodes.ping)
