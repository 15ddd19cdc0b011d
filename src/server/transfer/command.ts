import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import type { ResolvedOptions } from '../../options.js'
import { exportLines } from './export.js'
import { importAgents } from './import.js'
import { readAgents } from './read.js'

export interface TransferFlags { 'data-dir'?: string, replace?: boolean }

const placeOf = ({ level }: ResolvedOptions, flags: TransferFlags) => flags['data-dir'] ?? level.path

/** Prints the agents of a store. */
export async function runExport (options: ResolvedOptions, flags: TransferFlags): Promise<void> {
  for (const line of await exportLines(placeOf(options, flags))) {
    if (!process.stdout.write(`${line}\n`)) await once(process.stdout, 'drain')
  }
}

/** Reads agents from a file, or from the standard input where that is `-` or not given, into a store. */
export async function runImport (options: ResolvedOptions, flags: TransferFlags, file = '-'): Promise<void> {
  const input = file === '-' ? await text(process.stdin) : readFileSync(file, 'utf8')
  const { lease, limits, allowedAgentTypes, feed, level } = options
  const path = placeOf(options, flags)
  const records = readAgents(input, { rules: { allowedAgentTypes, maxRecordBytes: limits.maxRecordBytes }, now: Date.now() })
  await importAgents(records, {
    ...level,
    path,
    replace: flags.replace === true,
    leaseMs: lease.durationMs,
    retentionMs: lease.retentionMs,
    preservation: lease.preservation,
    changes: feed.ringSize
  })
  process.stderr.write(`${records.length} agents imported into ${path}\n`)
}
