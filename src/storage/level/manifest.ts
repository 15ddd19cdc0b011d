import { Reader } from './bytes.js'

/** What a manifest of LevelDB says of the other files. */
export interface Manifest {
  /** Logs from this number on hold what the tables do not. */
  logNumber: number
  previousLogNumber: number
  lastSequence: number
  /** Number of each table and its size in bytes. */
  tables: Map<number, number>
}

/** One reader for each tag of an edit (LevelDB, db/version_edit.cc). */
const tags: Record<number, (reader: Reader, manifest: Manifest) => void> = {
  1: reader => { reader.slice() },
  2: (reader, manifest) => { manifest.logNumber = reader.varint() },
  3: reader => { reader.varint() },
  4: (reader, manifest) => { manifest.lastSequence = reader.varint() },
  5: reader => { reader.varint(); reader.slice() },
  6: (reader, { tables }) => { reader.varint(); tables.delete(reader.varint()) },
  7: (reader, { tables }) => {
    reader.varint()
    tables.set(reader.varint(), reader.varint())
    reader.slice()
    reader.slice()
  },
  9: (reader, manifest) => { manifest.previousLogNumber = reader.varint() }
}

/** @throws RangeError for what is no manifest */
export function readManifest (edits: readonly Buffer[]): Manifest {
  const manifest: Manifest = { logNumber: 0, previousLogNumber: 0, lastSequence: 0, tables: new Map() }
  for (const edit of edits) {
    const reader = new Reader(edit)
    while (!reader.done) {
      const read = tags[reader.varint()]
      if (!read) throw new RangeError('an unknown tag')
      read(reader, manifest)
    }
  }
  return manifest
}
