import { maskedCrc32c } from './crc32c.js'

const blockSize = 32_768
const headerSize = 7
const [full, first, middle, last] = [1, 2, 3, 4]

interface Piece { type: number, start: number, end: number }

/** What a log holds. `damaged` when something before the last record cannot be read, `torn` when the end cannot. */
export interface LogContents { records: Buffer[], damaged: boolean, torn: boolean }

/** The piece whose header stands at `at`, when it is whole and its checksum is right. */
function pieceAt (bytes: Buffer, at: number): Piece | undefined {
  const blockEnd = Math.min(bytes.length, at - at % blockSize + blockSize)
  if (at + headerSize > blockEnd) return undefined
  const type = bytes[at + 6]!
  const end = at + headerSize + bytes.readUInt16LE(at + 4)
  if (type < full || type > last || end > blockEnd) return undefined
  return maskedCrc32c(bytes, at + 6, end) === bytes.readUInt32LE(at) ? { type, start: at + headerSize, end } : undefined
}

/** Every piece that can be read, and null for each gap before one: also in the rest of a block whose beginning is lost. */
function * piecesOf (bytes: Buffer): Generator<Piece | null> {
  let gap = false
  for (let at = 0; at < bytes.length;) {
    const piece = pieceAt(bytes, at)
    if (piece) {
      if (gap) yield null
      gap = false
      yield piece
      at = piece.end
    } else if (blockSize - at % blockSize < headerSize) {
      at += blockSize - at % blockSize
    } else {
      gap = true
      at++
    }
  }
  if (gap) yield null
}

/**
 * Reads a file in the format of LevelDB's logs and manifests: pieces of records with a checksum each, in blocks of
 * 32 KiB. LevelDB itself leaves out without a word what it cannot read, which is why this is read before it.
 */
export function readLog (bytes: Buffer): LogContents {
  const records: Buffer[] = []
  let parts: Buffer[] = []
  let lost = false
  for (const piece of piecesOf(bytes)) {
    const isStart = piece?.type === full || piece?.type === first
    if (!piece || isStart !== (parts.length === 0)) lost = true
    if (!piece || isStart) parts = []
    if (!piece || (!isStart && parts.length === 0)) continue
    parts.push(bytes.subarray(piece.start, piece.end))
    if (piece.type === first || piece.type === middle) continue
    if (lost) return { records, damaged: true, torn: false }
    records.push(Buffer.concat(parts))
    parts = []
  }
  return { records, damaged: false, torn: lost || parts.length > 0 }
}
