import { parseRegistration, type RegistrationRules } from '../../registry/registration.js'
import { isObject } from '../../lib/json.js'
import type { AgentRecord } from '../../storage/agent-store.js'
import { checkerOf, fieldErrors } from '../../protocol/validation.js'
import { ExportedAgent, format, formatVersion, Header } from './format.js'

export interface ReadContext { readonly rules: RegistrationRules, /** Epoch milliseconds. */ readonly now: number }

const maxFindings = 20

type Members = Record<string, unknown>

/** A time as ARCP writes it; without a zone it counts as UTC. */
function timeOf (value: unknown): number | undefined {
  if (typeof value !== 'string') return undefined
  const text = value.trim().replace(' ', 'T')
  const time = Date.parse(/[zZ]|[+-]\d\d:?\d\d$/.test(text) ? text : `${text}Z`)
  return Number.isNaN(time) ? undefined : time
}

function fromExport (value: unknown, { rules }: ReadContext): AgentRecord {
  const [error] = fieldErrors(ExportedAgent, value)
  if (error) throw new Error(`${error.path}: ${error.message}`)
  const record = value as ExportedAgent
  const { registration, body } = parseRegistration(JSON.parse(record.body), rules)
  if (registration.agent_id !== record.id) throw new Error(`the registration is of '${registration.agent_id}'`)
  return { ...record, body, type: registration.agent_type, capabilities: registration.capabilities }
}

/** A registration, or a record of ARCP, which is one with times. It belongs to no key: ARCP does not save whose it was. */
function fromRegistration (value: unknown, { rules, now }: ReadContext): AgentRecord {
  const { registration, body } = parseRegistration(value, rules)
  const { registered_at: registered, last_seen: seen, status } = value as Members
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

interface Item { readonly name: string, readonly value: () => unknown, readonly read: (value: unknown, context: ReadContext) => AgentRecord }

function exportItems (lines: readonly string[]): Item[] {
  const header: unknown = JSON.parse(lines[0]!)
  if (!checkerOf(Header).Check(header)) throw new Error('the first line is not that of an export')
  const { version, agents } = header as Header
  if (version > formatVersion) throw new Error(`the export is of version ${version}, and this program knows ${formatVersion}`)
  if (agents !== lines.length - 1) throw new Error(`the export has ${lines.length - 1} agents of ${agents}: its end is missing`)
  return lines.slice(1).map((line, index) => ({ name: `line ${index + 2}`, value: () => JSON.parse(line), read: fromExport }))
}

/** Of ARCP's state file, `{"agents": {id: record}}`, or of a list of registrations. */
function registrationItems (value: unknown): Item[] {
  const agents = isObject(value) ? value.agents : value
  if (Array.isArray(agents)) return agents.map((item, index) => ({ name: `item ${index + 1}`, value: () => item, read: fromRegistration }))
  if (isObject(agents)) return Object.entries(agents).map(([id, item]) => ({ name: `'${id}'`, value: () => withId(id, item), read: fromRegistration }))
  throw new Error('it is neither an export nor a state file of ARCP nor a list of registrations')
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

/** @throws with a line for each record that is wrong (the first 20) */
function readItems (items: readonly Item[], context: ReadContext): AgentRecord[] {
  const records = new Map<string, AgentRecord>()
  const findings: string[] = []
  for (const { name, value, read } of items) {
    try {
      const record = read(value(), context)
      if (records.has(record.id)) throw new Error(`'${record.id}' is there twice`)
      records.set(record.id, record)
    } catch (error) {
      findings.push(`\n  ${name}: ${(error as Error).message}`)
    }
  }
  const more = findings.length > maxFindings ? `\n  and ${findings.length - maxFindings} more` : ''
  if (findings.length > 0) throw new Error(`nothing was imported, these are wrong:${findings.slice(0, maxFindings).join('')}${more}`)
  return [...records.values()]
}

/**
 * Reads agents from an export, a state file of ARCP, or a JSON list of registrations.
 * @throws with everything that is wrong in the message
 */
export function readAgents (text: string, context: ReadContext): AgentRecord[] {
  return readItems(itemsOf(text), context)
}
