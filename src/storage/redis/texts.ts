import type { AppendCommand, LogEntry, PresenceMember, LogPosition, PresenceChange } from '../message-broker.js'

/** An entry as it is published. */
export interface Live { readonly epoch: string, readonly entry: LogEntry }

/** Any text as one that is the same in UTF-8, in one line, for each another one. */
export function keyOf (name: string): string {
  return JSON.stringify(name).slice(1, -1)
}

export function nameOf (key: string): string {
  return JSON.parse(`"${key}"`) as string
}

/** What of an entry is known before it is stored: a line that says how the rest is divided, the metadata, the data. */
export function packEntry ({ from, data, metadata, origin }: AppendCommand): string {
  return `${JSON.stringify([from, metadata?.length ?? -1, origin])}\n${metadata ?? ''}${data}`
}

export function unpackEntry (offset: number, at: number, text: string, start = 0): LogEntry {
  const line = text.indexOf('\n', start)
  const [from, length, origin] = JSON.parse(text.slice(start, line)) as [string, number, string | null]
  const end = line + 1 + Math.max(0, length)
  return { offset, from, data: text.slice(end), metadata: length < 0 ? undefined : text.slice(line + 1, end), origin: origin ?? undefined, at }
}

/** What is published of an append: `<epoch> <offset> <at>` and the entry. */
export function readLive (text: string): Live {
  const line = text.indexOf('\n')
  const [epoch, offset, at] = text.slice(0, line).split(' ') as [string, string, string]
  return { epoch, entry: unpackEntry(Number(offset), Number(at), text, line + 1) }
}

/** `<epoch> <offset>`, and ` 1` when it was there before. */
export function readPosition (text: string): LogPosition & { duplicate: boolean } {
  const [epoch, offset, duplicate] = text.split(' ') as [string, string, string?]
  return { epoch, offset: Number(offset), duplicate: duplicate === '1' }
}

/** `<op> <isWhole> <revision> <process> <peer>` and the metadata. */
export function readChange (text: string): PresenceChange {
  const line = text.indexOf('\n')
  const [op, isWhole, revision, process, ...peer] = text.slice(0, line).split(' ') as [PresenceChange['op'], string, string, string, ...string[]]
  return { op, isWhole: isWhole === '1', revision: Number(revision), process, peerId: nameOf(peer.join(' ')), metadata: text.slice(line + 1) }
}

/** The members of a place among its fields and values. */
export function readMembers (facts: readonly string[]): PresenceMember[] {
  const members: PresenceMember[] = []
  for (let index = 0; index < facts.length; index += 2) {
    const field = facts[index]!
    const space = field.indexOf(' ')
    if (space > 0) members.push({ peerId: nameOf(field.slice(space + 1)), process: field.slice(0, space), metadata: facts[index + 1]! })
  }
  return members
}

const escaped = (text: string) => text.replace(/[\\*?[\]]/g, '\\$&')

/** What Redis matches: at least the channels of a pattern. */
export function globOf (prefix: string, pattern: string): string {
  const segments = pattern.split('/').map(segment => segment === '*' || segment === '**' ? '*' : escaped(keyOf(segment)))
  return escaped(prefix) + segments.join('/')
}
