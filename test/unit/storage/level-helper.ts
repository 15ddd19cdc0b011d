import { createHash } from 'node:crypto'
import { cpSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { LevelStorage, type LevelStorageOptions } from '../../../src/storage/level/storage.js'
import type { AgentRecord, Change, RegisterOutcome, StoreListener, StoreSnapshot } from '../../../src/storage/agent-store.js'

/** Records the events of a store. */
export class RecordingListener implements StoreListener {
  readonly changes: Change[] = []
  readonly faults: Array<string | null> = []
  changed (changes: readonly Change[]) { this.changes.push(...changes) }
  touched () {}
  reloaded () {}
  availability (fault: string | null) { this.faults.push(fault) }
}

export const leases = { leaseMs: 60_000, retentionMs: 120_000 }

export interface Opened { storage: LevelStorage, listener: RecordingListener, snapshot: StoreSnapshot }

/** An open level store. */
export async function open (path: string, more: Partial<LevelStorageOptions> = {}): Promise<Opened> {
  const storage = new LevelStorage({ path, ...leases, ...more })
  const listener = new RecordingListener()
  return { storage, listener, snapshot: await storage.agents.open(listener) }
}

export function register ({ agents }: LevelStorage, id: string, text = 'x'): Promise<RegisterOutcome> {
  const content = { body: JSON.stringify({ id, text }), type: 'testing', capabilities: ['one'] }
  return agents.register({ id, content, claim: { kind: 'key', digest: 'key-a', exclusive: false }, maxAgents: 1e6 })
}

export async function registerMany (storage: LevelStorage, count: number, text = 'x', prefix = 'agent'): Promise<void> {
  await Promise.all(Array.from({ length: count }, (_, n) => register(storage, `${prefix}-${n}`, text)))
}

/** A copy of the folder of an open store, as after a crash. */
export function crashed (folder: string, to: string): string {
  cpSync(folder, to, { recursive: true, filter: name => !name.endsWith('LOCK') })
  return to
}

/** Digest of every file of a store except its lock files: reading a lock would release it. */
export function filesOf (folder: string): Record<string, string> {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8', withFileTypes: true })
  const files = names.filter(entry => entry.isFile() && entry.name !== 'LOCK' && !entry.parentPath.endsWith('in-use'))
  return Object.fromEntries(files.map(({ name }) => [name, createHash('sha256').update(readFileSync(join(folder, name))).digest('hex')]))
}

export const byId = (agents: readonly AgentRecord[]): AgentRecord[] => agents.toSorted((a, b) => a.created - b.created)
