import type { Deadline } from '../../lib/deadlines.js'
import type { Peer } from '../peer.js'

/** What is asked, and of whom: one peer, or any agent that can do it. */
export interface RequestOrder {
  readonly to?: string | undefined
  readonly capability?: string | undefined
  readonly data: unknown
  readonly timeoutMs: number
  /** Another agent may be asked when the first does not accept in time; true unless said otherwise. */
  readonly idempotent?: boolean | undefined
}

/** A connection that asks, and its name for the request. */
export interface Asker { readonly peer: Peer, readonly requestId: string }

/** `data` is JSON text. */
export interface Reply { readonly from: string, readonly data: string }

/** An agent, and a process through which it is connected. */
export interface Offer { readonly rid: string, readonly peerId: string, readonly process: string }

interface Asked {
  /** JSON text. */
  readonly data: string
  /** Epoch milliseconds. */
  readonly deadline: number
  /** Where a connection asks. */
  readonly asker: Asker | undefined
}

/** A request that has no answer yet. */
export interface OpenRequest extends Asked {
  readonly from: string
  readonly order: Omit<RequestOrder, 'data'>
  /** Agents that were asked. */
  readonly asked: Set<string>
  /** Other processes through which the one that is asked is connected. */
  places: string[]
  offer: Offer | null
  isAccepted: boolean
  expiry: Deadline | null
  acceptance: Deadline | null
  readonly answer: Promise<Reply | undefined>
  /** Without a reply the request was cancelled. */
  readonly resolve: (reply?: Reply) => void
  readonly reject: (error: unknown) => void
}

export function newRequest (from: string, order: Omit<RequestOrder, 'data'>, { data, deadline, asker }: Asked): OpenRequest {
  let resolve!: OpenRequest['resolve']
  let reject!: OpenRequest['reject']
  const answer = new Promise<Reply | undefined>((_resolve, _reject) => { [resolve, reject] = [_resolve, _reject] })
  // Member by member: with so many of them behind a spread it takes a hundred times as long.
  return { data, deadline, asker, from, order, asked: new Set(), places: [], offer: null, isAccepted: false, expiry: null, acceptance: null, answer, resolve, reject }
}
