import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync, writeSync } from 'node:fs'
import { uptime } from 'node:os'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { Type, type Static } from '@sinclair/typebox'
import { StoreRefusedError } from '../../errors.js'
import { isObject } from '../../lib/json.js'
import { checkerOf } from '../../protocol/validation.js'

/**
 * The version of the stored records. A store of an older version is upgraded when it is opened; a newer one is refused.
 * - 1: records without checksums
 * - 2: every record has a checksum, and the record `manifest` has the number of writes and a digest of all records
 */
export const schemaVersion = 2
export const headerName = 'AGENT-REGISTRY'

const Header = Type.Object({
  schema: Type.Integer({ minimum: 1 }),
  /** The number of writes that the database contains at least. Fewer mean that the newest writes are missing. */
  sequence: Type.Integer({ minimum: 0 }),
  durability: Type.Union([Type.Literal('commit'), Type.Literal('sync')]),
  /** Whether the store was closed after the last write. */
  clean: Type.Boolean(),
  /** The boot of the machine in which it was written: writes that are not synced survive processes, but not machines. */
  boot: Type.String()
})
export type Header = Static<typeof Header>

const size = 256
const restore = 'Restore this folder from a backup, or move it away to start with an empty one.'

/** The error of a store that is not opened: its path, the finding and the remedy. The store is unchanged. */
export function refusal (path: string, finding: string, advice: string) {
  return new StoreRefusedError(path, finding, advice)
}

export const damaged = (path: string, finding: string) => refusal(path, finding, restore)

/** @returns the id of the current boot, or the time of the boot to the minute on systems without an id */
export function bootId (path = '/proc/sys/kernel/random/boot_id'): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return `since-${Math.round(Date.now() / 60_000 - uptime() / 60)}`
  }
}

export const currentBoot = bootId()

/** CRC-32C (RFC 3720), the checksum of headers of schema 1. */
function crc32c (text: string): number {
  let crc = 0xffffffff
  for (const byte of Buffer.from(text)) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  }
  return (crc ^ 0xffffffff) >>> 0
}

const toHex = (checksum: number) => checksum.toString(16).padStart(8, '0')

/** One line of a fixed length, so that one write within one page replaces it. */
function encode (header: Header): string {
  const text = JSON.stringify(header)
  return `${text.padEnd(size - 10)} ${toHex(crc32(text))}\n`
}

/** @returns undefined when the checksum is wrong */
function decode (line: string): unknown {
  const text = line.slice(0, size - 10).trimEnd()
  const checksum = line.slice(size - 9, size - 1)
  return [crc32, crc32c].some(compute => toHex(compute(text)) === checksum) ? JSON.parse(text) : undefined
}

function isHeader (value: unknown): value is Header {
  return checkerOf(Header).Check(value)
}

/** @throws a refusal for a damaged header or one of a newer schema */
export function readHeader (folder: string): Header {
  const value = decode(readFileSync(join(folder, headerName), 'utf8'))
  if (isObject(value) && typeof value.schema === 'number' && value.schema > schemaVersion) {
    const finding = `it has schema ${value.schema}, and this version supports ${schemaVersion}`
    throw refusal(folder, finding, 'Start the newer version again, or export with it and import the file here.')
  }
  if (!isHeader(value)) throw damaged(folder, `${headerName} is empty or damaged`)
  return value
}

/** Creates the header of a new store, or replaces one, atomically. */
export function createHeader (folder: string, header: Header): void {
  const path = join(folder, headerName)
  writeFileSync(`${path}.new`, encode(header))
  renameSync(`${path}.new`, path)
}

/** The header of an open store, replaced after every write. */
export class HeaderFile {
  readonly #file: number

  constructor (folder: string) {
    this.#file = openSync(join(folder, headerName), 'r+')
  }

  write (header: Header): void {
    writeSync(this.#file, encode(header), 0)
  }

  sync (): void {
    fsyncSync(this.#file)
  }

  close (): void {
    closeSync(this.#file)
  }
}
