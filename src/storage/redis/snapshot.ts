import type { AgentRecord, Change } from '../agent-store.js'
import { changeOf, compose, readEntry, readMetrics, unpackContent, type ChangeEntry, type Head } from './records.js'
import type { FeedPosition } from './feed.js'
import type { Connections } from './connections.js'
import type { Commands, Reply } from './commands.js'

type Column = ReadonlyArray<string | null>
type Page = readonly [ids: Column, heads: Column, contents: Column, seen: Column, reports: Column]

export interface Loaded extends FeedPosition { readonly changes: readonly Change[] }

const maxTries = 5
const entriesPerRead = 2000

function recordAt ([ids, heads, contents, seen, reports]: Page, index: number): AgentRecord | undefined {
  const content = contents[index]
  if (!content) return undefined
  const report = reports[index]
  return compose(ids[index]!, {
    content: unpackContent(content),
    head: JSON.parse(heads[index]!) as Head,
    seen: Number(seen[index]),
    metrics: report ? readMetrics(report) : null
  })
}

/** All agents, page by page: each as it was when its page was read. */
export async function * readPages (commands: Commands): AsyncGenerator<{ epoch: string, revision: number, records: AgentRecord[] }> {
  let next: Promise<Reply> | undefined = commands.run('page', ['0'])
  while (next) {
    const { epoch, revision, status, extra }: Reply = await next
    // Redis reads the next one while this one is unpacked.
    next = status === '0' ? undefined : commands.run('page', [status])
    // Whoever reads may stop before it comes: then its fault is nobody's.
    if (next) Promise.allSettled([next])
    const page = extra as Page
    const records = page[0].map((_, index) => recordAt(page, index)).filter(record => record !== undefined)
    yield { epoch, revision, records }
  }
}

/** The entries of the stream after `from`, without a gap. */
async function readEntries ({ links, base }: Connections, from: number): Promise<ChangeEntry[]> {
  const entries: ChangeEntry[] = []
  let after = from
  for (;;) {
    const read = await links.commands.client.xrange(`${base}changes`, `(${after}-0`, '+', 'COUNT', entriesPerRead)
    for (const entry of read) entries.push(readEntry(entry))
    if (read.length < entriesPerRead) return entries
    after = entries.at(-1)!.n
  }
}

/** The newest entries of one epoch that follow each other. */
function unbroken (entries: readonly ChangeEntry[], epoch: string): ChangeEntry[] {
  let first = entries.length
  while (first > 0 && entries[first - 1]!.epoch === epoch && (first === entries.length || entries[first - 1]!.n + 1 === entries[first]!.n)) first--
  return entries.slice(first)
}

/** Brings records, each of some revision, to that of the last entry. */
function catchUp (records: Map<string, AgentRecord>, entries: readonly ChangeEntry[]) {
  for (const entry of entries) {
    const known = records.get(entry.id)
    if (known && known.revision >= entry.n) continue
    // Without its content it came and went before its page was read.
    const after = changeOf({ ...entry, was: undefined }, known)?.after
    if (after) records.set(entry.id, after)
    else records.delete(entry.id)
  }
}

/** What the entries changed, told backwards from the records that they led to. */
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

async function tryToLoad (commands: Commands, connections: Connections, remembered: number): Promise<Loaded | undefined> {
  const records = new Map<string, AgentRecord>()
  let start: { epoch: string, revision: number } | undefined
  let revision = 0
  for await (const page of readPages(commands)) {
    start ??= page
    if (page.epoch !== start.epoch) return undefined
    revision = page.revision
    for (const record of page.records) records.set(record.id, record)
  }
  const { epoch, revision: from } = start!
  const entries = unbroken(await readEntries(connections, Math.max(0, from - remembered)), epoch)
  const missed = entries.filter(({ n }) => n > from)
  const reached = missed.at(-1)?.n ?? from
  if (reached < revision || missed.length !== reached - from) return undefined
  catchUp(records, missed)
  return { epoch, revision: reached, mark: entries.at(-1)?.mark ?? '', records, changes: changesBefore(records, entries).slice(-remembered) }
}

/**
 * All agents at one revision: they are read in pages while others write, and the stream tells what was missed.
 * @param remembered how many of the newest changes are wanted
 */
export async function loadSnapshot (commands: Commands, connections: Connections, remembered: number): Promise<Loaded> {
  for (let tries = 0; tries < maxTries; tries++) {
    const loaded = await tryToLoad(commands, connections, remembered)
    if (loaded) return loaded
  }
  throw new Error('Agents change faster than they can be read: keep more changes')
}
