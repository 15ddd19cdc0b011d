import { problem, type ProblemError } from '../errors.js'
import type { AuthorizePublishHook, AuthorizeSubscribeHook } from '../hooks.js'
import { callHook, HookTimeoutError } from '../lib/hook-timeout.js'
import { formatChannel, formatPattern } from '../protocol/channel-names.js'
import type { Action } from '../protocol/schemas/messaging.js'
import type { Sender } from './peer.js'

type ChannelAction = Extract<Action, 'subscribe' | 'publish' | 'presence' | 'history'>

const verbs: Readonly<Record<ChannelAction, string>> = {
  subscribe: 'subscribe to',
  publish: 'publish to',
  presence: 'list the peers of',
  history: 'read the history of'
}
const channelActions: readonly ChannelAction[] = ['subscribe', 'publish', 'presence', 'history']

/** @throws insufficient-permissions */
export function assertParticipates ({ rights }: Sender): void {
  if (!rights.mayParticipate) throw problem('insufficient-permissions', 'Names that begin with user- are reserved for users')
}

/** For actions that concern no channel. @throws insufficient-permissions */
export function assertMay (sender: Sender, action: Action): void {
  if (sender.rights.mayAnywhere(action)) return
  assertParticipates(sender)
  throw problem('insufficient-permissions', `This token may not ${action}`)
}

/** For a subscription to every channel that a pattern matches. @throws insufficient-permissions; channel-not-authorized */
export function assertMaySubscribeAll (sender: Sender, pattern: string): void {
  if (sender.rights.mayAll('subscribe', pattern)) return
  assertParticipates(sender)
  throw problem('channel-not-authorized', `This token may not subscribe to all channels that ${formatPattern(pattern)} matches`)
}

/** The presence of the whole tier is open to senders with the right `presence` in any channel. @throws insufficient-permissions */
export function assertMaySeeTier (sender: Sender): void {
  if (sender.rights.mayAnywhere('presence')) return
  assertParticipates(sender)
  throw problem('insufficient-permissions', 'This token may not list the connected peers')
}

/**
 * The error for a sender without the right to an action in a channel: insufficient-permissions when it has another right
 * there, or may not take part in messaging; otherwise channel-not-authorized.
 */
export function notAllowed (sender: Sender, action: ChannelAction, channel: string): ProblemError {
  assertParticipates(sender)
  const { rights, dialect } = sender
  const name = formatChannel(channel, dialect)
  const hasOtherRight = channelActions.some(other => rights.may(other, channel))
  return hasOtherRight
    ? problem('insufficient-permissions', `This token may not ${verbs[action]} ${name}`)
    : problem('channel-not-authorized', `This token may not use the channel ${name}`)
}

interface ChannelHooksOptions {
  authorizePublish?: AuthorizePublishHook | undefined
  authorizeSubscribe?: AuthorizeSubscribeHook | undefined
  hookTimeoutMs: number
  onError: (error: unknown) => void
}

/**
 * The hooks with which the host application decides about channels, as functions that throw channel-not-authorized when
 * the hook refuses or fails, and hook-failed when it does not answer in time. `channel` is as the sender writes it.
 */
export class ChannelHooks {
  readonly authorizePublish: ((sender: Sender, channel: string, data: string) => Promise<void>) | undefined
  readonly authorizeSubscribe: ((sender: Sender, channel: string) => Promise<void>) | undefined
  readonly #options: ChannelHooksOptions

  constructor (options: ChannelHooksOptions) {
    const { authorizePublish, authorizeSubscribe } = options
    this.#options = options
    this.authorizePublish = authorizePublish && (async (sender, channel, data) => {
      await this.#authorize('authorizePublish', () => authorizePublish({ ...contextOf(sender, channel), data }))
    })
    this.authorizeSubscribe = authorizeSubscribe && (async (sender, channel) => {
      await this.#authorize('authorizeSubscribe', () => authorizeSubscribe(contextOf(sender, channel)))
    })
  }

  async #authorize (name: string, hook: () => unknown): Promise<void> {
    const result = await this.#call(name, hook)
    if (result !== true) throw problem('channel-not-authorized', 'Refused by the host')
  }

  /** The error of a hook is reported to the host; for the client it is a refusal. */
  async #call (name: string, hook: () => unknown): Promise<unknown> {
    try {
      return await callHook(name, this.#options.hookTimeoutMs, hook)
    } catch (error) {
      this.#options.onError(error)
      if (error instanceof HookTimeoutError) throw problem('hook-failed', 'The host did not answer in time')
      return false
    }
  }
}

function contextOf ({ peerId, authenticatedPrincipal }: Sender, channel: string) {
  return { channel, peerId, principal: authenticatedPrincipal }
}
