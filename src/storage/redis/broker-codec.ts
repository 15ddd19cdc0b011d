import type { AppendCommand, LogEntry, LogPosition, PresenceChange, PresenceMember } from '../message-broker.js'

/** An entry as it is published. */
export interface LiveEntry { readonly epoch: string, readonly entry: LogEntry }

/** Encodes any text as one line that survives UTF-8, different for each text. */
export function encodeName (name: string): string {
  return JSON.stringify(name).slice(1, -1)
}

export function decodeName (encoded: string): string {
  return JSON.parse(`"${encoded}"`)
}

/** The stored text of an entry: a line with sender, length of the metadata and origin; then the metadata and the data. */
export function packEntry ({ from, data, metadata, origin }: AppendCommand): string {
  return `${JSON.stringify([from, metadata?.length ?? -1, origin])}\n${metadata ?? ''}${data}`
}

/** @param start the index of the entry in `text` */
export function unpackEntry (offset: number, at: number, text: string, start = 0): LogEntry {
  const line = text.indexOf('\n', start)
  const [from, length, origin]: [string, number, string | null] = JSON.parse(text.slice(start, line))
  const end = line + 1 + Math.max(0, length)
  const metadata = length < 0 ? undefined : text.slice(line + 1, end)
  return { offset, from, data: text.slice(end), metadata, origin: origin ?? undefined, at }
}

/** Parses a published entry: the line `<epoch> <offset> <at>` and the stored text. */
export function readLiveEntry (text: string): LiveEntry {
  const line = text.indexOf('\n')
  const [epoch = '', offset, at] = text.slice(0, line).split(' ')
  return { epoch, entry: unpackEntry(Number(offset), Number(at), text, line + 1) }
}

/** Parses `<epoch> <offset>`, followed by ` 1` for an entry that was stored before. */
export function readPosition (text: string): LogPosition & { duplicate: boolean } {
  const [epoch = '', offset, duplicate] = text.split(' ')
  return { epoch, offset: Number(offset), duplicate: duplicate === '1' }
}

const presenceOps: ReadonlyMap<string, PresenceChange['op']> = new Map((['enter', 'update', 'leave'] as const).map(op => [op, op]))

/** Parses a published change of a presence set: the line `<op> <isWhole> <revision> <process> <peer>` and the metadata. */
export function readPresenceChange (text: string): PresenceChange {
  const line = text.indexOf('\n')
  const [op = '', isWhole, revision, process = '', ...peer] = text.slice(0, line).split(' ')
  return {
    op: presenceOps.get(op) ?? 'update',
    isWhole: isWhole === '1',
    revision: Number(revision),
    process,
    peerId: decodeName(peer.join(' ')),
    metadata: text.slice(line + 1)
  }
}

/** The members of a presence set, from the fields and values of its hash. Fields that begin with a space are counts. */
export function readMembers (fieldsAndValues: readonly string[]): PresenceMember[] {
  const members: PresenceMember[] = []
  for (let index = 0; index < fieldsAndValues.length; index += 2) {
    const [field = '', metadata = ''] = fieldsAndValues.slice(index, index + 2)
    const space = field.indexOf(' ')
    if (space > 0) members.push({ peerId: decodeName(field.slice(space + 1)), process: field.slice(0, space), metadata })
  }
  return members
}

const escapeGlob = (text: string) => text.replace(/[\\*?[\]]/g, '\\$&')

/** A glob of Redis that matches the channels of a pattern and possibly others. */
export function globOf (prefix: string, pattern: string): string {
  const segments = pattern.split('/').map(segment => segment === '*' || segment === '**' ? '*' : escapeGlob(encodeName(segment)))
  return escapeGlob(prefix) + segments.join('/')
}
