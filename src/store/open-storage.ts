import type { ResolvedOptions } from '../options.js'
import { MemoryState } from './memory-state.js'
import { MemoryStorage, type Storage } from './storage.js'

/** Where the options say that the registry keeps what it must not forget; not opened yet. */
export async function storageOf (options: ResolvedOptions): Promise<Storage> {
  const { lease, store, state } = options
  if (store) return { kind: 'custom', agents: store, state: state ?? new MemoryState({ clock: () => store.now() }) }
  const settings = { leaseMs: lease.durationMs, retentionMs: lease.retentionMs, preservation: lease.preservation }
  return new MemoryStorage(settings)
}
