import type { Direct, Sent } from './direct.js'
import { hostName } from '../host.js'
import type { RequestOrder } from '../requests/open-request.js'
import type { Requests } from '../requests/requests.js'

export interface SendOptions {
  /** In whose name; default: `$host`, which is nobody's. */
  from?: string
  /** The same by the same sender within five minutes is stored once. */
  msgId?: string
  /** `delivered` waits, for five seconds at most, until a connection of the receiver was given the message. */
  level?: 'accepted' | 'delivered'
}

export interface HostRequest extends RequestOrder {
  /** In whose name; default: `$host`, which is nobody's. */
  readonly from?: string
  /** Ends the request: the agent hears that nobody waits. */
  readonly signal?: AbortSignal
}

/** What a peer replied, and which. */
export interface HostReply { readonly from: string, readonly data: unknown }

/** Direct messages and requests of the host, with no rights asked. */
export interface HostDirect {
  /** Says something to one peer; one that is registered and away finds it in its inbox. @throws peer-not-found, missing-data, request-too-large, storage-unavailable */
  send (to: string, data: unknown, options?: SendOptions): Promise<Sent>
  /**
   * Asks a peer, or the least loaded agent that has a capability, and resolves with the reply.
   * @throws invalid-input, missing-data, request-too-large, quota-exceeded, agent-offline, no-responders,
   * deadline-exceeded, request-rejected (with the agent's code as `reason`), shutting-down; the reason of the signal
   */
  request (request: HostRequest): Promise<HostReply>
}

export function hostDirect ({ direct, requests }: { direct: Direct, requests: Requests }): HostDirect {
  return {
    send: async (to, data, { from = hostName, ...options } = {}) => direct.post(from, { to, data, ...options }),
    request: async ({ from: asking = hostName, signal, ...order }) => {
      const { from, data } = (await requests.ask(asking, order, { signal }))!
      return { from, data: JSON.parse(data) as unknown }
    }
  }
}
