import { problem, type ProblemError } from '../errors.js'
import type { AuthorizePublishHook, AuthorizeSubscribeHook } from '../options.js'
import { shownName, shownPattern } from '../protocol/channel-names.js'
import { callHook, HookTimeoutError } from '../lib/hook-timeout.js'
import type { Action } from '../protocol/schemas/messaging.js'
import type { Sender } from './peer.js'

export interface AccessOptions {
  authorizePublish?: AuthorizePublishHook | undefined
  authorizeSubscribe?: AuthorizeSubscribeHook | undefined
  hookTimeoutMs: number
  onError: (error: unknown) => void
}

type ChannelAction = Extract<Action, 'subscribe' | 'publish' | 'presence' | 'history'>

const verbs: Readonly<Record<ChannelAction, string>> = {
  subscribe: 'subscribe to',
  publish: 'publish to',
  presence: 'list the peers of',
  history: 'read the history of'
}
const actions: readonly ChannelAction[] = ['subscribe', 'publish', 'presence', 'history']

/** @throws insufficient-permissions */
export function assertParticipates ({ rights }: Sender): void {
  if (!rights.mayParticipate) throw problem('insufficient-permissions', 'Names that begin with user- are reserved for users')
}

/** For actions that concern no channel. @throws insufficient-permissions */
export function assertMay (sender: Sender, action: Action): void {
  assertParticipates(sender)
  if (!sender.rights.mayAnywhere(action)) throw problem('insufficient-permissions', `This token may not ${action}`)
}

/** Decides by the grants of a token, and by the hooks of the host application, what a sender may do in a channel. */
export class ChannelAccess {
  readonly #options: AccessOptions

  constructor (options: AccessOptions) {
    this.#options = options
  }

  /** @throws insufficient-permissions; channel-not-authorized */
  assertMay (sender: Sender, action: ChannelAction, channel: string): void {
    assertParticipates(sender)
    if (!sender.rights.may(action, channel)) throw notAllowed(sender, action, channel)
  }

  /** For a subscription to every channel that a pattern matches. @throws insufficient-permissions; channel-not-authorized */
  assertMaySubscribeAll (sender: Sender, pattern: string): void {
    assertParticipates(sender)
    if (sender.rights.mayAll('subscribe', pattern)) return
    throw problem('channel-not-authorized', `This token may not subscribe to all channels that ${shownPattern(pattern)} matches`)
  }

  /** The presence of the whole tier is open to senders with the right `presence` in any channel. @throws insufficient-permissions */
  assertMaySeeTier (sender: Sender): void {
    assertParticipates(sender)
    if (!sender.rights.mayAnywhere('presence')) throw problem('insufficient-permissions', 'This token may not list the connected peers')
  }

  /**
   * Calls the hook `authorizePublish`.
   * @param channel as the sender writes it
   * @returns nothing where the host has no hook
   * @throws channel-not-authorized when the hook refuses or fails; hook-failed when it does not answer in time
   */
  authorizePublish (sender: Sender, channel: string, data: string): Promise<void> | undefined {
    const { authorizePublish: hook } = this.#options
    return hook && this.#authorize('authorizePublish', () => hook({ ...contextOf(sender, channel), data }))
  }

  /** Calls the hook `authorizeSubscribe`, as `authorizePublish` does. */
  authorizeSubscribe (sender: Sender, channel: string): Promise<void> | undefined {
    const { authorizeSubscribe: hook } = this.#options
    return hook && this.#authorize('authorizeSubscribe', () => hook(contextOf(sender, channel)))
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

function notAllowed ({ rights, dialect }: Sender, action: ChannelAction, channel: string): ProblemError {
  const name = shownName(channel, dialect)
  const hasOtherRight = actions.some(other => rights.may(other, channel))
  return hasOtherRight
    ? problem('insufficient-permissions', `This token may not ${verbs[action]} ${name}`)
    : problem('channel-not-authorized', `This token may not use the channel ${name}`)
}

function contextOf ({ peerId, bearer }: Sender, channel: string) {
  return { channel, peerId, principal: bearer }
}
