import { channelNamed, tierPlace } from '../protocol/channel-names.js'
import type { Channels } from './channels.js'
import type { MessageListener } from './host-listener.js'
import { nameOfChannel } from '../storage/message-broker.js'
import { payloadText } from '../protocol/payload.js'
import type { Presence } from './presence/presence.js'
import type { Metadata } from './presence/profile.js'

export interface Published {
  readonly epoch: string
  readonly offset: number
  /** It had been published before: the position is that of the first. */
  readonly duplicate: boolean
}

export interface PublishOptions {
  /** In whose name; default: `$host`, which is nobody's. */
  from?: string
  /** The same by the same sender within five minutes is published once. */
  msgId?: string
}

/** Somebody who is subscribed to a channel, or takes part. */
export interface PresentPeer { readonly peerId: string, readonly metadata: Metadata }

/** Channels as the host uses them, with no rights asked. Names are written as on `/agents/ws`. */
export interface HostChannels {
  /** @throws invalid-channel, channel-reserved, missing-data, request-too-large, storage-unavailable */
  publish (channel: string, data: unknown, options?: PublishOptions): Promise<Published>
  /** Who is subscribed to a channel in any process or, of `$agents`, who takes part. @throws as `publish` does */
  presence (channel: string): Promise<PresentPeer[]>
  /**
   * Tells of the messages of a channel, or of all that a pattern matches (`*` for a segment, `**` for any rest), whatever
   * process they came by, from when it resolves.
   * @returns how to stop
   * @throws invalid-channel, channel-reserved, storage-unavailable
   */
  onMessage (channelOrPattern: string, listener: MessageListener): Promise<() => void>
}

export const hostName = '$host'

export function hostChannels ({ channels, presence }: { channels: Channels, presence: Presence }, maxDataBytes: number): HostChannels {
  return {
    publish: async (channel, data, { from = hostName, msgId } = {}) => channels.append(channelNamed(channel, 'agents'), { from, data: payloadText(data, maxDataBytes), msgId }),
    presence: async channel => {
      const { members } = await presence.roster(channel === tierPlace ? tierPlace : nameOfChannel(channelNamed(channel, 'agents')))
      return members.map(({ peerId, metadata }) => ({ peerId, metadata: JSON.parse(metadata) as Metadata }))
    },
    onMessage: (channelOrPattern, listener) => channels.listen(channelOrPattern, listener)
  }
}
