import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync, writeSync } from 'node:fs'
import { uptime } from 'node:os'
import { join } from 'node:path'
import { Type, type Static } from '@sinclair/typebox'
import { checkerOf } from '../../protocol/validation.js'
import { crc32c } from './crc32c.js'
import { damaged, refusal } from './refusal.js'

/** The form of what is stored. An older one is brought up to this at the start, a newer one is refused. */
export const schemaVersion = 1
export const markName = 'AGENT-REGISTRY'

const Mark = Type.Object({
  schema: Type.Integer({ minimum: 1 }),
  /** How many operations the database holds at least: fewer mean that the end of a file is missing. */
  sequence: Type.Integer({ minimum: 0 }),
  durability: Type.Union([Type.Literal('commit'), Type.Literal('sync')]),
  /** Whether it was closed after the last write. */
  clean: Type.Boolean(),
  /** The run of the machine in which it was written: what was not forced to the disk outlives processes, not machines. */
  boot: Type.String()
})
export type Mark = Static<typeof Mark>

const size = 256

/** What a machine calls its run, or when it began, to the minute, where it has no name for that. */
export function bootId (path = '/proc/sys/kernel/random/boot_id'): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return `since-${Math.round(Date.now() / 60_000 - uptime() / 60)}`
  }
}

/** Names this run of the machine. */
export const currentBoot = bootId()

/** One line of a fixed length, so that it is replaced by one write within one page. */
function encode (mark: Mark): string {
  const text = JSON.stringify(mark)
  return `${text.padEnd(size - 10)} ${crc32c(Buffer.from(text)).toString(16).padStart(8, '0')}\n`
}

function decode (line: string): unknown {
  const text = line.slice(0, size - 10).trimEnd()
  const sum = line.slice(size - 9, size - 1)
  return crc32c(Buffer.from(text)).toString(16).padStart(8, '0') === sum ? JSON.parse(text) : undefined
}

/** @throws a refusal for what is no mark or one of a newer schema */
export function readMark (folder: string): Mark {
  const path = join(folder, markName)
  const value = decode(readFileSync(path, 'utf8'))
  const { schema } = (value ?? {}) as Partial<Mark>
  if (typeof schema === 'number' && schema > schemaVersion) {
    throw refusal(folder, `it has schema ${schema}, and this version knows ${schemaVersion}`, 'Start the newer version again, or export with it and import the file here.')
  }
  if (!checkerOf(Mark).Check(value)) throw damaged(folder, `${markName} is empty or damaged`)
  return value as Mark
}

/** Puts a first mark in place as a whole. */
export function createMark (folder: string, mark: Mark): void {
  const path = join(folder, markName)
  writeFileSync(`${path}.new`, encode(mark))
  renameSync(`${path}.new`, path)
}

/** The mark of an open store, replaced after every write. */
export class MarkFile {
  readonly #file: number

  constructor (folder: string) {
    this.#file = openSync(join(folder, markName), 'r+')
  }

  write (mark: Mark): void {
    writeSync(this.#file, encode(mark), 0)
  }

  sync (): void {
    fsyncSync(this.#file)
  }

  close (): void {
    closeSync(this.#file)
  }
}
