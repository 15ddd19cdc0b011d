import type { Principal } from '../auth/principal.js'
import type { EncodedMessage } from '../protocol/encoded-message.js'
import type { Rights } from '../auth/rights.js'

/** How a connection speaks: names of channels and a few frames differ. */
export type Dialect = 'agents' | 'v1'

/** Somebody who says something, by a connection or without one. */
export interface Sender {
  readonly peerId: string
  readonly dialect: Dialect
  readonly rights: Rights
  readonly bearer: Principal
}

/** Somebody who takes part, through one connection. */
export interface Peer extends Sender {
  /** Of the connection. */
  readonly id: string
  readonly isOpen: boolean
  /** It only looks on: it is asked nothing. */
  readonly observes: boolean
  push (message: EncodedMessage): void
  /** Calls back once what was sent so far has left, a tick later at the earliest; of a kind only the last counts. */
  whenSent (kind: string, go: () => void): void
}
