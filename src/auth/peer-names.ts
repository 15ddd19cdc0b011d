import type { Principal } from './principal.js'

/** Whether a peer bears the name of an agent that did not give it that: it may have registered after the token was made. */
export function isImpostor ({ type, subject, agentId }: Principal, isRegistered: (agentId: string) => boolean): boolean {
  return type === 'peer' && agentId !== subject && isRegistered(subject)
}
