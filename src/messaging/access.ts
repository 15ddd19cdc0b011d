import { callHook } from '../protocol/hooks.js'
import { HookTimeoutError, problem, type ProblemError } from '../errors.js'
import type { AuthorizePublishHook, AuthorizeSubscribeHook } from '../options.js'
import type { Action } from '../protocol/schemas/messaging.js'
import { shownName, shownPattern } from '../protocol/channel-names.js'
import type { Sender } from './peer.js'
import { assertTakesPart } from './participation.js'

export interface AccessOptions {
  authorizePublish?: AuthorizePublishHook | undefined
  authorizeSubscribe?: AuthorizeSubscribeHook | undefined
  hookTimeoutMs: number
  onError: (error: unknown) => void
}

type ChannelAction = Extract<Action, 'subscribe' | 'publish' | 'presence' | 'history'>

const actions: readonly ChannelAction[] = ['subscribe', 'publish', 'presence', 'history']

function notAllowed ({ rights, dialect }: Sender, action: ChannelAction, channel: string): ProblemError {
  const isKnown = actions.some(other => rights.may(other, channel))
  const name = shownName(channel, dialect)
  return isKnown ? problem('insufficient-permissions', `The token does not allow to ${verbs[action]} ${name}`) : problem('channel-not-authorized', `The token does not allow the channel ${name}`)
}

const verbs: Readonly<Record<ChannelAction, string>> = { subscribe: 'subscribe to', publish: 'publish to', presence: 'see who is in', history: 'read the history of' }

/** What somebody may do with a channel, by token and by the host. */
export class Access {
  readonly #options: AccessOptions

  constructor (options: AccessOptions) {
    this.#options = options
  }

  /** @throws insufficient-permissions; channel-not-authorized */
  assertMay (sender: Sender, action: ChannelAction, channel: string): void {
    assertTakesPart(sender)
    if (!sender.rights.may(action, channel)) throw notAllowed(sender, action, channel)
  }

  /** For all channels that a pattern matches. @throws insufficient-permissions; channel-not-authorized */
  assertMayAll (sender: Sender, pattern: string): void {
    assertTakesPart(sender)
    if (!sender.rights.mayAll('subscribe', pattern)) throw problem('channel-not-authorized', `The token does not allow all of ${shownPattern(pattern)}`)
  }

  /** Who takes part is seen by everybody who may see who is in any channel. @throws insufficient-permissions */
  assertSeesTier (sender: Sender): void {
    assertTakesPart(sender)
    if (!sender.rights.mayAnywhere('presence')) throw problem('insufficient-permissions', 'The token does not allow to see who is there')
  }

  /** Nothing when no hook is asked. @param channel as the sender writes it @throws channel-not-authorized when the host refuses; hook-failed when it does not answer */
  askToPublish (sender: Sender, channel: string, data: string): Promise<void> | undefined {
    const { authorizePublish: hook } = this.#options
    return hook && this.#ask('authorizePublish', () => hook({ ...contextOf(sender, channel), data }))
  }

  /** The same before a subscription. */
  askToSubscribe (sender: Sender, channel: string): Promise<void> | undefined {
    const { authorizeSubscribe: hook } = this.#options
    return hook && this.#ask('authorizeSubscribe', () => hook(contextOf(sender, channel)))
  }

  async #ask (name: string, hook: () => unknown): Promise<void> {
    const answer = await this.#answer(name, hook)
    if (answer !== true) throw problem('channel-not-authorized', 'Refused by the host')
  }

  /** What goes wrong in a hook is for the host to know, and a refusal for the client. */
  async #answer (name: string, hook: () => unknown): Promise<unknown> {
    try {
      return await callHook(name, this.#options.hookTimeoutMs, hook)
    } catch (error) {
      this.#options.onError(error)
      if (error instanceof HookTimeoutError) throw problem('hook-failed', 'The host did not answer in time')
      return false
    }
  }
}

const contextOf = ({ peerId, bearer }: Sender, channel: string) => ({ channel, peerId, principal: bearer })
