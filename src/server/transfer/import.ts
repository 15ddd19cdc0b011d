import { ignore } from '../../storage/level/journal.js'
import { LevelStorage, type LevelStorageOptions } from '../../storage/level/storage.js'
import type { AgentRecord } from '../../storage/agent-store.js'

export interface ImportOptions extends LevelStorageOptions {
  /** Take the place of agents with the same id; otherwise one of them refuses the whole import. */
  replace: boolean
}

const shown = 10
const nobody = { changed: ignore, touched: ignore, reloaded: ignore, availability: ignore }

/** @throws when some of the records have ids that are taken */
function assertNew (known: readonly AgentRecord[], records: readonly AgentRecord[]) {
  const ids = new Set(known.map(({ id }) => id))
  const taken = records.map(({ id }) => id).filter(id => ids.has(id))
  const more = taken.length > shown ? ` and ${taken.length - shown} more` : ''
  if (taken.length > 0) throw new Error(`nothing was imported, these are registered already (--replace takes their place): ${taken.slice(0, shown).join(', ')}${more}`)
}

/**
 * Adds agents to a store that no process has open: all of them, or none.
 * @throws a refusal, or which ids are taken
 */
export async function importAgents (records: readonly AgentRecord[], { replace, ...options }: ImportOptions): Promise<void> {
  const { agents } = new LevelStorage({ ...options, durability: 'sync' })
  const { agents: known } = await agents.open(nobody)
  try {
    if (!replace) assertNew(known, records)
    await agents.adopt(records)
  } finally {
    await agents.close()
  }
}
