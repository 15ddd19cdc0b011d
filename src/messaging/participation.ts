import { problem } from '../errors.js'
import type { Action } from '../protocol/schemas/messaging.js'
import type { Sender } from './peer.js'

const usersPrefix = 'user-'

/** Whether a name is that of a user: an agent may have it, but it takes no part. */
export const isUsersName = (peerId: string): boolean => peerId.startsWith(usersPrefix)

/** An agent that has the name of a user takes no part: it would be taken for that user. */
export function mayTakePart ({ bearer, peerId }: Pick<Sender, 'bearer' | 'peerId'>): boolean {
  return bearer.type !== 'agent' || !isUsersName(peerId)
}

/** @throws insufficient-permissions */
export function assertTakesPart (sender: Sender): void {
  if (!mayTakePart(sender)) throw problem('insufficient-permissions', `Names that begin with ${usersPrefix} are those of users`)
}

/** What concerns no channel. @throws insufficient-permissions */
export function assertMay (sender: Sender, action: Action): void {
  assertTakesPart(sender)
  if (!sender.rights.mayAnywhere(action)) throw problem('insufficient-permissions', `The token does not allow to ${action}`)
}
