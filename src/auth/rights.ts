import { isWithin, matchesPattern } from '../lib/pattern-trie.js'
import type { Action, Grant } from '../protocol/schemas/messaging.js'
import type { Principal } from '../protocol/principal.js'

const channelActions = ['subscribe', 'publish', 'presence', 'history'] as const
const userPrefix = 'user-'

/** The grants of a principal whose token has none. */
function defaultGrants ({ type }: Principal, peerId: string): readonly Grant[] {
  const own = `${peerId}/**`
  if (type === 'admin') return [{ channels: ['**'], allow: [...channelActions, 'send', 'broadcast', 'work', 'serve', 'approve'] }]
  if (type === 'agent') return [{ channels: ['agents/**', 'workflows/**', 'public/**', own], allow: [...channelActions, 'send', 'serve'] }]
  return [{ channels: [own], allow: [...channelActions, 'send'] }]
}

/** The name of a principal in messaging: an agent's id, the name in a peer's token, `user-<subject>` of a user or an admin. */
export function peerIdOf ({ type, agentId, subject }: Pick<Principal, 'type' | 'agentId' | 'subject'>): string {
  if (type === 'peer') return subject
  return type === 'agent' && agentId !== null ? agentId : `${userPrefix}${subject}`
}

export function isUserName (peerId: string): boolean {
  return peerId.startsWith(userPrefix)
}

/** Whether a principal may use messaging: an agent with the name of a user may not, since others would take it for that user. */
export function mayParticipate (principal: Principal): boolean {
  return principal.type !== 'agent' || !isUserName(peerIdOf(principal))
}

/** The rights of a principal in channels and towards peers; none for a principal that may not take part in messaging. */
export class Rights {
  readonly mayParticipate: boolean
  readonly #grants: readonly Grant[]
  readonly #matches: (granted: string, channel: string) => boolean

  constructor (principal: Principal) {
    this.mayParticipate = mayParticipate(principal)
    this.#grants = this.mayParticipate ? principal.grants ?? defaultGrants(principal, peerIdOf(principal)) : []
    this.#matches = principal.type === 'peer' ? matchesPeerChannel : matchesPattern
  }

  /** For actions that concern no channel, and to tell whether an action is allowed in any channel. */
  mayAnywhere (action: Action): boolean {
    return this.#grants.some(({ allow }) => allow.includes(action))
  }

  may (action: Action, channel: string): boolean {
    return this.#grants.some(({ allow, channels }) => allow.includes(action) && channels.some(granted => this.#matches(granted, channel)))
  }

  /** Whether the action is allowed in every channel that `pattern` matches. */
  mayAll (action: Action, pattern: string): boolean {
    return this.#grants.some(({ allow, channels }) => allow.includes(action) && channels.some(granted => isWithin(granted, pattern)))
  }

  /** Whether the action is allowed in every channel that an entry of a peer token matches. */
  mayGrant (action: Action, entry: string): boolean {
    const { prefix, stars } = splitStars(entry)
    if (stars === '') return this.may(action, entry)
    // Grants consist of whole segments: an entry that ends within a segment needs the right to all of that segment.
    return this.mayAll(action, prefix.slice(0, prefix.lastIndexOf('/') + 1) + stars)
  }
}

function splitStars (entry: string): { prefix: string, stars: '' | '*' | '**' } {
  let stars: '' | '*' | '**' = ''
  if (entry.endsWith('**')) stars = '**'
  else if (entry.endsWith('*')) stars = '*'
  return { prefix: entry.slice(0, entry.length - stars.length), stars }
}

/**
 * Whether an entry of a peer token matches a channel. An entry without a star matches one name; with `*` at its end all
 * names that continue the prefix within the segment; with `**` all that continue it.
 */
function matchesPeerChannel (entry: string, channel: string): boolean {
  const { prefix, stars } = splitStars(entry)
  if (stars === '') return entry === channel
  return channel.length > prefix.length && channel.startsWith(prefix) && (stars === '**' || !channel.includes('/', prefix.length))
}

/** Whether a peer bears the name of an agent that did not give it that: it may have registered after the token was made. */
export function isImpostor ({ type, subject, agentId }: Principal, isRegistered: (agentId: string) => boolean): boolean {
  return type === 'peer' && agentId !== subject && isRegistered(subject)
}
