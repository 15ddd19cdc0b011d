import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { readLog } from './log-file.js'
import { readManifest, type Manifest } from './manifest.js'
import { damaged } from './refusal.js'
import { isWholeTable } from './table-file.js'

export interface Inspection {
  /** Number of the newest operation that the files hold. */
  readonly sequence: number
}

const overwritten = (name: string) => `${name} is damaged: a part of it was overwritten, or is not what was written there`

async function readOf (folder: string, name: string): Promise<Buffer> {
  try {
    return await readFile(join(folder, name))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    throw damaged(folder, `${name} is missing`)
  }
}

async function manifestOf (folder: string): Promise<Manifest> {
  const name = (await readOf(folder, 'CURRENT')).toString().trimEnd()
  if (!/^MANIFEST-\d+$/.test(name)) throw damaged(folder, 'CURRENT is empty or damaged')
  const { records, damaged: isDamaged, torn } = readLog(await readOf(folder, name))
  if (isDamaged || torn || records.length === 0) throw damaged(folder, `${name} is truncated or damaged`)
  try {
    return readManifest(records)
  } catch {
    throw damaged(folder, overwritten(name))
  }
}

/** The `size` is what the manifest says. */
async function checkTable (folder: string, number: number, size: number): Promise<void> {
  const name = `${String(number).padStart(6, '0')}.ldb`
  const bytes = await readOf(folder, name)
  if (bytes.length !== size) throw damaged(folder, `${name} has ${bytes.length} bytes of ${size}`)
  if (!isWholeTable(bytes)) throw damaged(folder, overwritten(name))
}

/** Sequence after a batch of writes: its header is the number of the first of them and their count. */
function sequenceAfter (batch: Buffer): { first: number, next: number } {
  const first = Number(batch.readBigUInt64LE(0))
  return { first, next: first + batch.readUInt32LE(8) }
}

async function logsOf (folder: string, { logNumber, previousLogNumber }: Manifest): Promise<string[]> {
  const names = (await readdir(folder)).filter(name => /^\d+\.log$/.test(name))
  const isLive = (name: string) => Number.parseInt(name) >= logNumber || Number.parseInt(name) === previousLogNumber
  return names.filter(isLive).sort((a, b) => Number.parseInt(a) - Number.parseInt(b))
}

async function lastOfLogs (folder: string, manifest: Manifest): Promise<number> {
  let next: number | undefined
  for (const name of await logsOf(folder, manifest)) {
    const { records, damaged: isDamaged } = readLog(await readOf(folder, name))
    if (isDamaged) throw damaged(folder, overwritten(name))
    for (const record of records) {
      const batch = sequenceAfter(record)
      if (next !== undefined && batch.first !== next) throw damaged(folder, `writes are missing before those of ${name}`)
      next = batch.next
    }
  }
  return Math.max(manifest.lastSequence, (next ?? 1) - 1)
}

/**
 * Reads the files of a LevelDB database without changing them and checks every checksum. LevelDB, as it is built here,
 * checks none of its tables and leaves out of its logs what it cannot read.
 * @param tables false leaves out the tables, which a running process has no reason to doubt
 * @throws a refusal for whatever is missing or damaged
 */
export async function inspect (folder: string, { tables = true } = {}): Promise<Inspection> {
  const manifest = await manifestOf(folder)
  if (tables) for (const [number, size] of manifest.tables) await checkTable(folder, number, size)
  return { sequence: await lastOfLogs(folder, manifest) }
}
