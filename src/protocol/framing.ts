/** Opcodes of RFC 6455 §5.2, as far as a server sends them here. */
export const opcodes = { text: 1, binary: 2, ping: 9 } as const
export type Opcode = typeof opcodes[keyof typeof opcodes]

const isLast = 0x80
const largestShort = 125
const largestMedium = 0xffff

/** Bytes of the header of a frame that is not masked. */
export function headerSize (payloadSize: number): number {
  return payloadSize <= largestShort ? 2 : payloadSize <= largestMedium ? 4 : 10
}

/** Writes the header of a whole message that is not masked (RFC 6455 §5.2). @returns where its payload begins */
export function writeHeader (target: Buffer, at: number, opcode: Opcode, payloadSize: number): number {
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
