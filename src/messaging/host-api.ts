import { agentsChannel, channelKey, parseChannel, formatChannel } from '../protocol/channel-names.js'
import { payloadText } from '../protocol/validation.js'
import type { Channels } from './channels.js'
import type { Direct, Sent } from './direct/direct.js'
import type { Metadata, Presence } from './presence/presence.js'
import type { RequestInput } from './requests/open-requests.js'
import type { Requests } from './requests/requests.js'
import type { Delivery, Subscriber } from './subscription.js'

export interface Published {
  readonly epoch: string
  readonly offset: number
  /** A message with this `msgId` was published before; the position is that of the first one. */
  readonly duplicate: boolean
}

export interface PublishOptions {
  /** The name of the sender; default: `$host`, which no peer can have. */
  from?: string
  /** A second message of the same sender with the same id within five minutes is not published. */
  msgId?: string
}

/** A peer that is subscribed to a channel, or connected to the tier. */
export interface PresentPeer { readonly peerId: string, readonly metadata: Metadata }

/** A channel message as a listener of the host application receives it. */
export interface ChannelMessage {
  readonly channel: string
  readonly from: string
  readonly data: unknown
  /** The metadata of a sender that was connected. */
  readonly fromMetadata?: Metadata
  readonly epoch: string
  /** Grows by one with each message of an epoch: a listener sees by it that messages were lost. */
  readonly offset: number
  /** Epoch seconds. */
  readonly timestamp: number
}

export type MessageListener = (message: ChannelMessage) => void | Promise<void>

/** Channels for the host application, without a check of rights. Names are written as on `/agents/ws`. */
export interface HostChannels {
  /** Publishes a message. @throws invalid-channel, channel-reserved, missing-data, request-too-large, storage-unavailable */
  publish (channel: string, data: unknown, options?: PublishOptions): Promise<Published>
  /** The peers that are subscribed to a channel in any process; for `$agents` all connected peers. @throws as `publish` does */
  presence (channel: string): Promise<PresentPeer[]>
  /**
   * Calls a listener with each message of a channel, or of all channels that a pattern matches (`*` for one segment, `**`
   * at the end for one or more), published through any process. Errors of the listener are logged.
   * @returns an unsubscribe function, once the listener receives messages
   * @throws invalid-channel, channel-reserved, storage-unavailable
   */
  onMessage (channelOrPattern: string, listener: MessageListener): Promise<() => void>
}

export interface SendOptions {
  /** The name of the sender; default: `$host`, which no peer can have. */
  from?: string
  /** A second message of the same sender with the same id within five minutes is not stored. */
  msgId?: string
  /** `delivered` waits up to five seconds until a connection of the receiver was sent the message. */
  level?: 'accepted' | 'delivered'
}

export interface HostRequest extends RequestInput {
  /** The name of the requester; default: `$host`, which no peer can have. */
  readonly from?: string
  /** Cancels the request, and notifies the agent that has it. */
  readonly signal?: AbortSignal
}

/** The reply to a request, and the peer that sent it. */
export interface HostReply { readonly from: string, readonly data: unknown }

/** Direct messages and requests for the host application, without a check of rights. */
export interface HostDirect {
  /**
   * Sends a message to one peer. A registered peer that is not connected finds it in its inbox.
   * @throws peer-not-found, missing-data, request-too-large, storage-unavailable
   */
  send (to: string, data: unknown, options?: SendOptions): Promise<Sent>
  /**
   * Sends a request to a peer, or to the least loaded agent with a capability, and resolves with the reply.
   * @throws invalid-input, missing-data, request-too-large, quota-exceeded, agent-offline, no-responders,
   * deadline-exceeded, request-rejected (with the agent's code as `reason`), shutting-down; the reason of the signal
   */
  request (request: HostRequest): Promise<HostReply>
}

interface HostMessagingOptions {
  channels: Channels
  presence: Presence
  direct: Direct
  requests: Requests
  maxDataBytes: number
  onError: (error: unknown) => void
}

const hostName = '$host'

/** The part of `app.agentRegistry` that concerns messaging. */
export function createHostMessaging (options: HostMessagingOptions): HostChannels & HostDirect {
  const { channels, presence, direct, requests, maxDataBytes, onError } = options
  return {
    async publish (channel, data, { from = hostName, msgId } = {}) {
      return channels.append(parseChannel(channel, 'agents'), { from, data: payloadText(data, maxDataBytes), msgId })
    },
    async presence (channel) {
      const setName = channel === agentsChannel ? agentsChannel : channelKey(parseChannel(channel, 'agents'))
      const { members } = await presence.members(setName)
      return members.map(({ peerId, metadata }) => ({ peerId, metadata: JSON.parse(metadata) }))
    },
    onMessage: (channelOrPattern, listener) => channels.listen(channelOrPattern, new HostSubscriber(listener, onError)),
    send: async (to, data, { from = hostName, ...rest } = {}) => direct.post(from, { to, data, ...rest }),
    async request ({ from: requester = hostName, signal, ...input }) {
      const { from, data } = await requests.requestUnchecked(requester, input, signal)
      return { from, data: JSON.parse(data) }
    }
  }
}

/** Calls a listener of the host application. */
class HostSubscriber implements Subscriber {
  readonly owner = this
  readonly #listener: MessageListener
  readonly #onError: (error: unknown) => void

  constructor (listener: MessageListener, onError: (error: unknown) => void) {
    this.#listener = listener
    this.#onError = onError
  }

  deliver ({ channel, epoch, entry: { from, data, metadata, offset, at } }: Delivery): void {
    this.#call({
      channel: formatChannel(channel, 'agents'),
      from,
      data: JSON.parse(data),
      ...(metadata !== undefined && { fromMetadata: JSON.parse(metadata) }),
      epoch,
      offset,
      timestamp: at / 1000
    }).catch(this.#onError)
  }

  /** The listener sees a gap by the offsets. */
  reportGap (): void {}

  async #call (message: ChannelMessage) {
    await this.#listener(message)
  }
}
