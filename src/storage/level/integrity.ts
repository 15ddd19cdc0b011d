import { crc32 } from 'node:zlib'
import { Type, type Static } from '@sinclair/typebox'
import { parseStored } from './records.js'

/** The key of the record that describes all others. */
export const manifestKey = 'manifest'

const Manifest = Type.Object({
  /** The number of writes since the store was created. */
  writes: Type.Integer({ minimum: 0 }),
  /** The number of records, without the manifest. */
  records: Type.Integer({ minimum: 0 }),
  /** The sum of the checksums of all records, modulo 2^32. */
  digest: Type.Integer({ minimum: 0 })
})
export type Manifest = Static<typeof Manifest>

const emptyManifest: Manifest = { writes: 0, records: 0, digest: 0 }

export type Operation =
  | { readonly type: 'put', readonly key: string, readonly value: string }
  | { readonly type: 'del', readonly key: string }

const checksumLength = 8

/** The checksum of a record covers its key and its value. */
const checksumOf = (key: string, value: string) => crc32(value, crc32(key))

/** Puts the checksum before a value. */
function seal (value: string, checksum: number): string {
  return checksum.toString(16).padStart(checksumLength, '0') + value
}

interface CheckedValue { readonly value: string, readonly checksum: number }

/** @returns undefined when the checksum is wrong */
export function unseal (key: string, sealed: string): CheckedValue | undefined {
  const value = sealed.slice(checksumLength)
  const checksum = checksumOf(key, value)
  return sealed === seal(value, checksum) ? { value, checksum } : undefined
}

/** The state of the ledger after a batch, and the records that the batch changes; undefined removes one. */
export interface PendingBatch {
  readonly operations: Operation[]
  readonly manifest: Manifest
  readonly checksums: ReadonlyMap<string, number | undefined>
}

/**
 * The checksums of all stored records, from which the manifest of the next batch follows. Checksums are kept as signed
 * integers, which V8 stores without an allocation.
 */
export class Ledger {
  readonly #checksums = new Map<string, number>()
  #writes = 0
  #digest = 0

  get manifest (): Manifest {
    return { writes: this.#writes, records: this.#checksums.size, digest: this.#digest >>> 0 }
  }

  /** Starts again, without records. */
  reset (writes: number): void {
    this.#checksums.clear()
    this.#writes = writes
    this.#digest = 0
  }

  /** Adds a record that is stored already. */
  add (key: string, checksum: number): void {
    this.#set(key, checksum)
  }

  /** Compares the added records with a manifest and takes over its number of writes. @returns whether they match */
  verify ({ writes, records, digest }: Manifest = emptyManifest): boolean {
    this.#writes = writes
    return records === this.#checksums.size && digest === this.#digest >>> 0
  }

  /** Seals the values of a batch and adds the manifest that will be valid after it. The ledger itself is unchanged. */
  prepare (operations: readonly Operation[]): PendingBatch {
    const checksums = new Map<string, number | undefined>()
    const sealed = operations.map((operation): Operation => {
      const checksum = operation.type === 'put' ? checksumOf(operation.key, operation.value) : undefined
      checksums.set(operation.key, checksum)
      return operation.type === 'put' && checksum !== undefined ? { ...operation, value: seal(operation.value, checksum) } : operation
    })
    const manifest = this.#manifestAfter(operations.length, checksums)
    const text = JSON.stringify(manifest)
    sealed.push({ type: 'put', key: manifestKey, value: seal(text, checksumOf(manifestKey, text)) })
    return { operations: sealed, manifest, checksums }
  }

  /** Takes over a batch that was written. */
  commit ({ manifest, checksums }: PendingBatch): void {
    for (const [key, checksum] of checksums) this.#set(key, checksum)
    this.#writes = manifest.writes
  }

  #manifestAfter (writes: number, checksums: ReadonlyMap<string, number | undefined>): Manifest {
    let records = this.#checksums.size
    let digest = this.#digest
    for (const [key, checksum] of checksums) {
      const before = this.#checksums.get(key)
      records += (checksum === undefined ? 0 : 1) - (before === undefined ? 0 : 1)
      digest = (digest + (checksum ?? 0) - (before ?? 0)) | 0
    }
    return { writes: this.#writes + writes, records, digest: digest >>> 0 }
  }

  #set (key: string, checksum: number | undefined) {
    this.#digest = (this.#digest + (checksum ?? 0) - (this.#checksums.get(key) ?? 0)) | 0
    if (checksum === undefined) this.#checksums.delete(key)
    else this.#checksums.set(key, checksum | 0)
  }
}

/** @throws when the manifest is damaged */
export function readManifest (sealed: string): Manifest {
  const checked = unseal(manifestKey, sealed)
  if (!checked) throw new TypeError('the manifest is damaged')
  return parseStored(Manifest, checked.value)
}
