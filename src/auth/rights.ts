import { matchesPeerChannel } from './channel-grants.js'
import type { Principal } from './principal.js'
import type { Action, Grant } from '../protocol/schemas/messaging.js'
import { isWithin, matchesPattern } from '../lib/pattern-trie.js'

const channelActions = ['subscribe', 'publish', 'presence', 'history'] as const

/** What may be done without grants in a token. */
function usualGrants ({ type }: Principal, peerId: string): readonly Grant[] {
  const own = `${peerId}/**`
  if (type === 'admin') return [{ channels: ['**'], allow: [...channelActions, 'send', 'broadcast', 'work', 'serve', 'approve'] }]
  if (type === 'agent') return [{ channels: ['agents/**', 'workflows/**', 'public/**', own], allow: [...channelActions, 'send', 'serve'] }]
  return [{ channels: [own], allow: [...channelActions, 'send'] }]
}

/** Under what name a principal is known to others: an agent by its id, a peer by the name in its token, a user and an admin by theirs with `user-` before it. */
export function peerIdOf ({ type, agentId, subject }: Pick<Principal, 'type' | 'agentId' | 'subject'>): string {
  if (type === 'peer') return subject
  return type === 'agent' ? agentId! : `user-${subject}`
}

/** What a principal may do with channels and peers. */
export class Rights {
  readonly #grants: readonly Grant[]
  readonly #matches: (granted: string, channel: string) => boolean

  constructor (principal: Principal) {
    this.#grants = principal.grants ?? usualGrants(principal, peerIdOf(principal))
    this.#matches = principal.type === 'peer' ? matchesPeerChannel : matchesPattern
  }

  /** Whether it may do so somewhere: what concerns no channel. */
  mayAnywhere (action: Action): boolean {
    return this.#grants.some(({ allow }) => allow.includes(action))
  }

  may (action: Action, channel: string): boolean {
    return this.#grants.some(({ allow, channels }) => allow.includes(action) && channels.some(granted => this.#matches(granted, channel)))
  }

  /** Whether it may do so with every channel that `pattern` matches. */
  mayAll (action: Action, pattern: string): boolean {
    return this.#grants.some(({ allow, channels }) => allow.includes(action) && channels.some(granted => isWithin(granted, pattern)))
  }
}
