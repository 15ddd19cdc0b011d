import type { Rights } from './rights.js'
import type { Action } from '../protocol/schemas/messaging.js'

/** What stands for others at the end of a channel in a peer's token, and what is before it. */
function split (text: string): { prefix: string, stars: '' | '*' | '**' } {
  const stars = text.endsWith('**') ? '**' : text.endsWith('*') ? '*' : ''
  return { prefix: text.slice(0, text.length - stars.length), stars }
}

/**
 * Whether a channel is one of those that an entry in a peer's token names: that one or, where the entry ends in a star, all
 * that begin so and go on within the segment, with two stars all that go on at all.
 */
export function matchesPeerChannel (entry: string, channel: string): boolean {
  const { prefix, stars } = split(entry)
  if (stars === '') return entry === channel
  return channel.length > prefix.length && channel.startsWith(prefix) && (stars === '**' || !channel.includes('/', prefix.length))
}

/** Whether somebody may do so with every channel that an entry in a peer's token names. */
export function mayGrant (rights: Rights, action: Action, entry: string): boolean {
  const { prefix, stars } = split(entry)
  if (stars === '') return rights.may(action, entry)
  // Grants have whole segments, so that the rest of one is given only by whoever has all of it.
  return rights.mayAll(action, prefix.slice(0, prefix.lastIndexOf('/') + 1) + stars)
}
