/*
 * LevelDB verifies the checksums of its logs and manifests, but those of its tables only on request, which classic-level
 * does not offer; and its assertions end the process when it reads a damaged table. Therefore tables are checked before
 * LevelDB opens them. The format: https://github.com/google/leveldb/blob/main/doc/table_format.md
 */

const footerSize = 48
/** The type of a block and its checksum follow each block. */
const trailerSize = 5
const magic = Buffer.from('57fb808b247547db', 'hex')

const slices = 4
/** Lookup tables for CRC-32C (RFC 3720), four bytes at a time (slicing, Kounavis and Berry 2005). */
const crcTables = new DataView(new ArrayBuffer(slices * 1024))
const lookUp = (slice: number, byte: number) => crcTables.getUint32((slice << 10) | ((byte & 0xff) << 2), true)

for (let byte = 0; byte < 256; byte++) {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  crcTables.setUint32(byte << 2, crc, true)
}
for (let slice = 1; slice < slices; slice++) {
  for (let byte = 0; byte < 256; byte++) {
    const crc = lookUp(slice - 1, byte)
    crcTables.setUint32((slice << 10) | (byte << 2), (crc >>> 8) ^ lookUp(0, crc), true)
  }
}

function crc32c (bytes: DataView, start: number, end: number): number {
  let crc = 0xffffffff
  let at = start
  for (; at + slices <= end; at += slices) {
    crc ^= bytes.getUint32(at, true)
    crc = lookUp(3, crc) ^ lookUp(2, crc >>> 8) ^ lookUp(1, crc >>> 16) ^ lookUp(0, crc >>> 24)
  }
  for (; at < end; at++) crc = (crc >>> 8) ^ lookUp(0, crc ^ bytes.getUint8(at))
  return (crc ^ 0xffffffff) >>> 0
}

/** LevelDB stores checksums rotated, because the checksum of data that contains checksums is weak. */
function maskedCrc32c (bytes: DataView, start: number, end: number): number {
  const crc = crc32c(bytes, start, end)
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0
}

/** Reads varints and lengths one after the other. @throws RangeError past the end */
class TableReader {
  readonly #bytes: Buffer
  #at = 0

  constructor (bytes: Buffer) {
    this.#bytes = bytes
  }

  get isAtEnd () { return this.#at >= this.#bytes.length }

  /** Reads seven bits per byte, the lowest first. Exact up to 2^53. */
  varint (): number {
    let value = 0
    for (let factor = 1; factor <= 2 ** 56; factor *= 128) {
      const byte = this.#bytes.readUInt8(this.#at++)
      value += (byte & 0x7f) * factor
      if (byte < 0x80) return value
    }
    throw new RangeError('a number without an end')
  }

  handle (): BlockHandle {
    return { offset: this.varint(), size: this.varint() }
  }

  skip (length: number): void {
    this.#at += length
    if (this.#at > this.#bytes.length) throw new RangeError('past the end')
  }
}

interface BlockHandle { readonly offset: number, readonly size: number }

/** Whether a block has its checksum, which covers the type after it. */
function isIntact (bytes: DataView, { offset, size }: BlockHandle): boolean {
  const end = offset + size + 1
  return end + 4 <= bytes.byteLength && maskedCrc32c(bytes, offset, end) === bytes.getUint32(end, true)
}

/** The handles in an index block. */
function handlesOf (block: Buffer): BlockHandle[] {
  const restarts = block.readUInt32LE(block.length - 4)
  const reader = new TableReader(block.subarray(0, block.length - 4 - 4 * restarts))
  const handles: BlockHandle[] = []
  while (!reader.isAtEnd) {
    reader.varint()
    const keyLength = reader.varint()
    reader.varint()
    reader.skip(keyLength)
    handles.push(reader.handle())
  }
  return handles
}

/** Whether every block of a table (without compression) has its checksum, and the file has nothing else. */
export function isTableIntact (file: Buffer): boolean {
  if (file.length < footerSize || !file.subarray(-8).equals(magic)) return false
  const bytes = new DataView(file.buffer, file.byteOffset, file.length)
  try {
    const footer = new TableReader(file.subarray(-footerSize))
    const indexes = [footer.handle(), footer.handle()]
    if (!indexes.every(handle => isIntact(bytes, handle))) return false
    const handles = indexes.flatMap(({ offset, size }) => handlesOf(file.subarray(offset, offset + size)))
    const length = [...indexes, ...handles].reduce((sum, { size }) => sum + size + trailerSize, footerSize)
    return length === file.length && handles.every(handle => isIntact(bytes, handle))
  } catch {
    return false
  }
}
