import type { AgentRecord, Change } from '../agent-store.js'
import { changeOf, composeRecord, readEntry, readMetrics, unpackContent, type ChangeEntry, type RecordHead } from './agent-codec.js'
import type { AgentCommands, AgentPage, Reply } from './agent-commands.js'
import type { AgentSnapshot } from './change-stream.js'
import type { Connections } from './connections.js'

export interface LoadedSnapshot extends AgentSnapshot {
  /** The newest changes, oldest first. */
  readonly changes: readonly Change[]
}

const maxTries = 5
const entriesPerRead = 2000

/** @returns undefined for an agent that was removed while the page was read */
function recordAt ([ids, heads, contents, seen, reports]: AgentPage, index: number): AgentRecord | undefined {
  const [id, headText, content, report] = [ids[index], heads[index], contents[index], reports[index]]
  if (!id || !headText || !content) return undefined
  const head: RecordHead = JSON.parse(headText)
  const metrics = report ? readMetrics(report) : null
  return composeRecord(id, { content: unpackContent(content), head, seen: Number(seen[index]), metrics })
}

/** Reads all agents, page by page: each agent as it was when its page was read. */
export async function * readPages (commands: AgentCommands): AsyncGenerator<{ epoch: string, revision: number, records: AgentRecord[] }> {
  let next: Promise<Reply<AgentPage>> | undefined = commands.run('page', ['0'])
  while (next) {
    const { epoch, revision, status, result }: Reply<AgentPage> = await next
    // Redis reads the next page while this one is unpacked.
    next = status === '0' ? undefined : commands.run('page', [status])
    // A caller that stops early does not receive an error of the next page.
    if (next) Promise.allSettled([next])
    const records = result[0].map((_, index) => recordAt(result, index)).filter(record => record !== undefined)
    yield { epoch, revision, records }
  }
}

/** The entries of the stream after number `from`, without a gap. */
async function readEntries ({ links, base }: Connections, from: number): Promise<ChangeEntry[]> {
  const entries: ChangeEntry[] = []
  for (let after = from; ; after = entries.at(-1)?.n ?? after) {
    const read = await links.commands.client.xrange(`${base}changes`, `(${after}-0`, '+', 'COUNT', entriesPerRead)
    for (const entry of read) entries.push(readEntry(entry))
    if (read.length < entriesPerRead) return entries
  }
}

/** The newest entries that have this epoch and consecutive numbers. */
function withoutGap (entries: readonly ChangeEntry[], epoch: string): ChangeEntry[] {
  let next: ChangeEntry | undefined
  let first = entries.length
  for (const entry of [...entries].reverse()) {
    if (entry.epoch !== epoch || (next && entry.n + 1 !== next.n)) break
    next = entry
    first--
  }
  return entries.slice(first)
}

/** Brings records of different revisions to the revision of the last entry. */
function catchUp (records: Map<string, AgentRecord>, entries: readonly ChangeEntry[]) {
  for (const entry of entries) {
    const known = records.get(entry.id)
    if (known && known.revision >= entry.n) continue
    // An agent without content was registered and removed before its page was read.
    const after = changeOf({ ...entry, was: undefined }, known)?.after
    if (after) records.set(entry.id, after)
    else records.delete(entry.id)
  }
}

/** The changes of the entries, derived backwards from the resulting records. */
function changesBefore (records: ReadonlyMap<string, AgentRecord>, entries: readonly ChangeEntry[]): Change[] {
  const known = new Map<string, AgentRecord | null>()
  const changes: Change[] = []
  for (const entry of [...entries].reverse()) {
    const later = known.has(entry.id) ? known.get(entry.id) : records.get(entry.id)
    const change = changeOf(entry, later ?? undefined)
    if (!change) break
    known.set(entry.id, change.before)
    changes.push(change)
  }
  return changes.reverse()
}

/** @returns undefined when Redis began another epoch or dropped needed changes while the agents were read */
async function tryToLoad (commands: AgentCommands, connections: Connections, keep: number): Promise<LoadedSnapshot | undefined> {
  const records = new Map<string, AgentRecord>()
  let start: { epoch: string, revision: number } | undefined
  let revision = 0
  for await (const page of readPages(commands)) {
    start ??= page
    if (page.epoch !== start.epoch) return undefined
    revision = page.revision
    for (const record of page.records) records.set(record.id, record)
  }
  if (!start) return undefined
  const { epoch, revision: from } = start
  const entries = withoutGap(await readEntries(connections, Math.max(0, from - keep)), epoch)
  const missed = entries.filter(({ n }) => n > from)
  const reached = missed.at(-1)?.n ?? from
  if (reached < revision || missed.length !== reached - from) return undefined
  catchUp(records, missed)
  const changes = changesBefore(records, entries).slice(-keep)
  return { epoch, revision: reached, mark: entries.at(-1)?.mark ?? '', records, changes }
}

/**
 * Loads all agents at one revision. The pages are read while other processes write; the stream has the changes that the
 * pages missed.
 * @param keep the number of newest changes to return
 */
export async function loadSnapshot (commands: AgentCommands, connections: Connections, keep: number): Promise<LoadedSnapshot> {
  for (let tries = 0; tries < maxTries; tries++) {
    const loaded = await tryToLoad(commands, connections, keep)
    if (loaded) return loaded
  }
  throw new Error('Agents change faster than Redis returns them: increase feed.ringSize')
}
