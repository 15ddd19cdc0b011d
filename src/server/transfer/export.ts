import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { LevelDatabase } from '../../storage/level/database.js'
import { openAndLoad } from '../../storage/level/load.js'
import { markName } from '../../storage/level/mark.js'
import { format, formatVersion, type Header } from './format.js'

/**
 * The agents of a store that no process has open, as lines of JSON in the order in which they were registered.
 * @throws a refusal, and where there is no store
 */
export async function exportLines (folder: string): Promise<string[]> {
  if (!existsSync(join(folder, markName))) throw new Error(`there is no store in ${folder}: say where with --data-dir or ARCP_DATA_DIR`)
  const database = new LevelDatabase(folder, 'commit')
  const { agents } = await openAndLoad(database)
  await database.close({ clean: false })
  const records = agents.map(({ record }) => record).sort((a, b) => a.created - b.created)
  const header: Header = { format, version: formatVersion, agents: records.length }
  return [header, ...records].map(line => JSON.stringify(line))
}
