import type { Deadline } from './deadlines.js'
import type { Peer } from './peer.js'

/** What is asked, and of whom: one peer, or any agent that can do it. */
export interface RequestOrder {
  readonly to?: string | undefined
  readonly capability?: string | undefined
  readonly data: unknown
  readonly timeoutMs: number
  /** Another agent may be asked when the first does not accept in time. */
  readonly idempotent?: boolean | undefined
}

/** `data` is JSON text. */
export interface Reply { readonly from: string, readonly data: string }

/** An agent, and a process through which it is connected. */
export interface Offer { readonly rid: string, readonly peerId: string, readonly process: string }

/** A request that has no answer yet. */
export interface OpenRequest {
  /** The connection that asked, which nobody need have been, and its name for the request. */
  readonly asker: Peer | null
  readonly requestId: string
  readonly from: string
  readonly order: Omit<RequestOrder, 'data'>
  /** JSON text. */
  readonly data: string
  /** Epoch milliseconds. */
  readonly deadline: number
  /** Agents that were asked. */
  readonly asked: Set<string>
  /** Other processes through which the one that is asked is connected. */
  places: string[]
  offer: Offer | null
  isAccepted: boolean
  expiry: Deadline | null
  acceptance: Deadline | null
  /** Without a reply the request was cancelled. */
  readonly resolve: (reply?: Reply) => void
  readonly reject: (error: Error) => void
}
