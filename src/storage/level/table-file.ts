import { Reader } from './bytes.js'
import { maskedCrc32c } from './crc32c.js'

const footerSize = 48
const trailerSize = 5
const magic = Buffer.from('57fb808b247547db', 'hex')

interface Handle { offset: number, size: number }

function readHandle (reader: Reader): Handle {
  return { offset: reader.varint(), size: reader.varint() }
}

function isWhole (bytes: Buffer, { offset, size }: Handle): boolean {
  const end = offset + size + 1
  return end + 4 <= bytes.length && maskedCrc32c(bytes, offset, end) === bytes.readUInt32LE(end)
}

/** The places that an index block points to. */
function * handlesOf (block: Buffer): Generator<Handle> {
  const restarts = block.readUInt32LE(block.length - 4)
  const entries = new Reader(block.subarray(0, block.length - 4 - 4 * restarts))
  while (!entries.done) {
    entries.varint()
    const rest = entries.varint()
    entries.varint()
    entries.advance(rest)
    yield readHandle(entries)
  }
}

/** Whether every block of a table of LevelDB (not compressed) has its checksum, and nothing lies between them. */
export function isWholeTable (bytes: Buffer): boolean {
  if (bytes.length < footerSize || !bytes.subarray(-8).equals(magic)) return false
  try {
    const footer = new Reader(bytes, bytes.length - footerSize)
    const indexes = [readHandle(footer), readHandle(footer)]
    if (!indexes.every(handle => isWhole(bytes, handle))) return false
    const handles = indexes.flatMap(({ offset, size }) => [...handlesOf(bytes.subarray(offset, offset + size))])
    const length = [...indexes, ...handles].reduce((sum, { size }) => sum + size + trailerSize, footerSize)
    return length === bytes.length && handles.every(handle => isWhole(bytes, handle))
  } catch {
    return false
  }
}
