import { type Static, Type } from '@sinclair/typebox'
import { Content, RecordHead } from '../storage/level/records.js'
import { parseRegistration, type RegistrationRules } from '../registry/registration.js'
import { isObject } from '../lib/json.js'
import type { AgentRecord } from '../storage/agent-store.js'
import { fieldErrors, matches } from '../protocol/validation.js'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { LevelDatabase } from '../storage/level/database.js'
import { headerName } from '../storage/level/header.js'
import { ignore } from '../storage/level/journal.js'
import { LevelStorage, type LevelStorageOptions } from '../storage/level/storage.js'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import type { ResolvedOptions } from '../options.js'

/** Name of the export format: a line with a `Header`, then one line with an `ExportedAgent` per agent. */
export const format = 'fastify-agent-registry/agents'
const formatVersion = 1

export const Header = Type.Object({
  format: Type.Literal(format),
  version: Type.Integer({ minimum: 1 }),
  agents: Type.Integer({ minimum: 0, description: 'Number of lines that follow' })
})
export type Header = Static<typeof Header>

/** All data of an agent except its lease, which starts in full at the import. */
const ExportedAgent = Type.Composite([Type.Object({ id: Type.String() }), RecordHead, Content])
type ExportedAgent = Static<typeof ExportedAgent>

interface ReadContext { readonly rules: RegistrationRules, /** Epoch milliseconds. */ readonly now: number }

const maxFindings = 20

/** Parses a time as ARCP writes it; without a zone, it is UTC. */
function timeOf (value: unknown): number | undefined {
  if (typeof value !== 'string') return undefined
  const text = value.trim().replace(' ', 'T')
  const time = Date.parse(/[zZ]|[+-]\d\d:?\d\d$/.test(text) ? text : `${text}Z`)
  return Number.isNaN(time) ? undefined : time
}

function fromExport (value: unknown, { rules }: ReadContext): AgentRecord {
  if (!matches(ExportedAgent, value)) {
    const [error] = fieldErrors(ExportedAgent, value)
    throw new Error(`${error?.path}: ${error?.message}`)
  }
  const { registration, body } = parseRegistration(JSON.parse(value.body), rules)
  if (registration.agent_id !== value.id) throw new Error(`the registration has the agent_id '${registration.agent_id}'`)
  return { ...value, body, type: registration.agent_type, capabilities: registration.capabilities }
}

/** Reads a registration, or a record of ARCP, which has times too. It belongs to no key: ARCP does not store the key. */
function fromRegistration (value: unknown, { rules, now }: ReadContext): AgentRecord {
  const { registration, body } = parseRegistration(value, rules)
  const { registered_at: registered, last_seen: seen, status } = isObject(value) ? value : {}
  const registeredAt = timeOf(registered) ?? now
  return {
    id: registration.agent_id,
    body,
    type: registration.agent_type,
    capabilities: registration.capabilities,
    ownerKey: null,
    registeredAt,
    created: 0,
    incarnation: registeredAt,
    revision: 0,
    state: status === 'dead' ? 'dead' : 'alive',
    lastSeen: timeOf(seen) ?? registeredAt,
    held: false,
    metrics: null
  }
}

interface Item {
  readonly name: string
  readonly value: () => unknown
  readonly read: (value: unknown, context: ReadContext) => AgentRecord
}

function exportItems (lines: readonly string[]): Item[] {
  const [first = '', ...agentLines] = lines
  const header: unknown = JSON.parse(first)
  if (!matches(Header, header)) throw new Error('the first line is not the header of an export')
  const { version, agents } = header
  if (version > formatVersion) throw new Error(`the export has version ${version}, and this program supports version ${formatVersion}`)
  if (agents !== agentLines.length) throw new Error(`the export is truncated: it has ${agentLines.length} of ${agents} agents`)
  return agentLines.map((line, index) => ({ name: `line ${index + 2}`, value: () => JSON.parse(line), read: fromExport }))
}

/** The items of a state file of ARCP, `{"agents": {id: record}}`, or of a list of registrations. */
function registrationItems (value: unknown): Item[] {
  const agents = isObject(value) ? value.agents : value
  if (Array.isArray(agents)) return agents.map((item, index) => ({ name: `item ${index + 1}`, value: () => item, read: fromRegistration }))
  if (isObject(agents)) {
    return Object.entries(agents).map(([id, item]) => ({ name: `'${id}'`, value: () => withId(id, item), read: fromRegistration }))
  }
  throw new Error('the input is not an export, a state file of ARCP or a list of registrations')
}

function withId (id: string, item: unknown): unknown {
  if (!isObject(item)) return item
  if (item.agent_id !== undefined && item.agent_id !== id) throw new Error(`its agent_id is '${item.agent_id}'`)
  return { ...item, agent_id: id }
}

function itemsOf (text: string): Item[] {
  const lines = text.split('\n').filter(line => line.trim() !== '')
  if (lines[0]?.includes(`"${format}"`)) return exportItems(lines)
  return registrationItems(JSON.parse(text))
}

/** @throws an error with one line per invalid record (the first 20) */
function readItems (items: readonly Item[], context: ReadContext): AgentRecord[] {
  const records = new Map<string, AgentRecord>()
  const findings: string[] = []
  for (const { name, value, read } of items) {
    try {
      const record = read(value(), context)
      if (records.has(record.id)) throw new Error(`duplicate agent_id '${record.id}'`)
      records.set(record.id, record)
    } catch (error) {
      findings.push(`\n  ${name}: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  const more = findings.length > maxFindings ? `\n  and ${findings.length - maxFindings} more` : ''
  if (findings.length > 0) throw new Error(`nothing was imported, invalid records:${findings.slice(0, maxFindings).join('')}${more}`)
  return [...records.values()]
}

/**
 * Reads agents from an export, a state file of ARCP, or a JSON list of registrations.
 * @throws an error whose message lists all faults
 */
export function readAgents (text: string, context: ReadContext): AgentRecord[] {
  return readItems(itemsOf(text), context)
}

/**
 * The agents of a store that no process has open, as lines of JSON in the order of their registration.
 * @throws AGENT_REGISTRY_STORE_REFUSED, or an error if there is no store
 */
export async function exportLines (folder: string): Promise<string[]> {
  if (!existsSync(join(folder, headerName))) {
    throw new Error(`there is no store in ${folder}: set its folder by --data-dir or ARCP_DATA_DIR`)
  }
  const database = new LevelDatabase(folder, 'commit')
  const { agents } = await database.open()
  await database.close({ clean: false })
  const records = agents.map(({ record }) => record).sort((a, b) => a.created - b.created)
  const header: Header = { format, version: formatVersion, agents: records.length }
  return [header, ...records].map(line => JSON.stringify(line))
}

interface ImportOptions extends LevelStorageOptions {
  /** Whether to replace agents with the same id; otherwise one such agent fails the whole import. */
  replace: boolean
}

const shown = 10
const noSubscriber = { changed: ignore, touched: ignore, reloaded: ignore, availability: ignore }

/** @throws an error if ids of the records are registered already */
function assertNew (known: readonly AgentRecord[], records: readonly AgentRecord[]) {
  const knownIds = new Set(known.map(({ id }) => id))
  const taken = records.map(({ id }) => id).filter(id => knownIds.has(id))
  const more = taken.length > shown ? ` and ${taken.length - shown} more` : ''
  if (taken.length === 0) return
  const ids = `${taken.slice(0, shown).join(', ')}${more}`
  throw new Error(`nothing was imported, these agents are registered already (--replace replaces them): ${ids}`)
}

/**
 * Adds agents to a store that no process has open, all of them or none.
 * @throws AGENT_REGISTRY_STORE_REFUSED, or an error that names the ids registered already
 */
export async function importAgents (records: readonly AgentRecord[], { replace, ...options }: ImportOptions): Promise<void> {
  const { agents } = new LevelStorage({ ...options, durability: 'sync' })
  const { agents: known } = await agents.open(noSubscriber)
  try {
    if (!replace) assertNew(known, records)
    await agents.adopt(records)
  } finally {
    await agents.close()
  }
}

interface TransferFlags { 'data-dir'?: string, replace?: boolean }

const folderOf = ({ level }: ResolvedOptions, flags: TransferFlags) => flags['data-dir'] ?? level.path

/** Writes the agents of a store to the standard output. */
export async function runExport (options: ResolvedOptions, flags: TransferFlags): Promise<void> {
  for (const line of await exportLines(folderOf(options, flags))) {
    if (!process.stdout.write(`${line}\n`)) await once(process.stdout, 'drain')
  }
}

/** Imports agents into a store from a file, or from the standard input if the file is `-` or omitted. */
export async function runImport (options: ResolvedOptions, flags: TransferFlags, file = '-'): Promise<void> {
  const input = file === '-' ? await text(process.stdin) : readFileSync(file, 'utf8')
  const { lease, limits, allowedAgentTypes, feed, level } = options
  const path = folderOf(options, flags)
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
