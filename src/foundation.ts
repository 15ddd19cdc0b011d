import { KeyRing, PersistedSecrets } from './auth/keys.js'
import type { Log } from './dashboard/audit.js'
import { KeyValueReplica } from './storage/kv-replica.js'
import type { ResolvedOptions } from './options.js'
import { Registry } from './registry/registry.js'
import { hideableFields } from './protocol/schemas/agent.js'
import { createStorage, type Storage } from './storage/storage.js'

/** What everything else stands on: the opened storage, and what has to be read from it first. */
export interface Foundation {
  readonly options: ResolvedOptions
  readonly log: Log
  readonly storage: Storage
  readonly registry: Registry
  readonly state: KeyValueReplica
  readonly keys: KeyRing
  /** With which tokens are signed; the first signs, all verify. */
  readonly tokenSecrets: readonly string[]
  /** Closes the storage; does nothing the second time. */
  close (): Promise<void>
}

/** What is not shown publicly of the fields that may be hidden. */
function hiddenFields ({ publicFields }: ResolvedOptions): string[] {
  return publicFields ? hideableFields.filter(field => !publicFields.includes(field)) : []
}

function createRegistry (options: ResolvedOptions, { agents: store }: Storage, log: Log): Registry {
  const { lease, limits, feed, allowedAgentTypes, onRegister, publicView } = options
  return new Registry({
    store,
    leaseMs: lease.durationMs,
    cleanupIntervalMs: lease.cleanupIntervalMs,
    allowedAgentTypes,
    maxAgents: limits.maxAgents,
    maxRecordBytes: limits.maxRecordBytes,
    hookTimeoutMs: limits.hookTimeoutMs,
    ringSize: feed.ringSize,
    hiddenFields: hiddenFields(options),
    onRegister,
    publicView,
    onError: error => log.error({ err: error }, 'registry')
  })
}

/** The configured secrets of tokens, or one that is kept in the store. */
async function tokenSecretsOf ({ jwt: { secret } }: ResolvedOptions, kept: PersistedSecrets): Promise<string[]> {
  if (secret === undefined) return [await kept.tokens()]
  return typeof secret === 'string' ? [secret] : secret
}

/**
 * Opens the storage that the options name.
 * @throws what a store throws that cannot be opened; nothing is left open then
 */
export async function openFoundation (options: ResolvedOptions, log: Log): Promise<Foundation> {
  const storage = await createStorage(options, error => log.error({ err: error }, 'storage'))
  const registry = createRegistry(options, storage, log)
  const state = new KeyValueReplica(storage.kv)
  let closed: Promise<void> | undefined
  const close = () => (closed ??= storage.broker.close().finally(() => state.close()).finally(() => registry.close()))
  try {
    await registry.open()
    await state.open()
    const kept = new PersistedSecrets(storage.kv)
    const tokenSecrets = await tokenSecretsOf(options, kept)
    const keys = new KeyRing(options.agentKeys, await kept.agentKeys(tokenSecrets[0]!))
    state.onReload(() => { kept.restore().catch(error => log.error({ err: error }, 'secrets')) })
    return { options, log, storage, registry, state, keys, tokenSecrets, close }
  } catch (error) {
    await close().catch(() => {})
    throw error
  }
}
