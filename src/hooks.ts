// The hooks of the host application: the functions that it passes as options.
import type { Principal } from './protocol/principal.js'
import type { AgentRegistration } from './protocol/schemas/agent.js'

/** Returns one vector for each text, in the same order, all of the same length. */
export type EmbedHook = (texts: string[]) => Array<ArrayLike<number>> | Promise<Array<ArrayLike<number>>>
/** The argument of `onRegister`: a registration that is about to be stored, and the principal that sent it. */
export interface RegisterHookContext { registration: AgentRegistration, principal: Principal | null }
/** Runs before a registration is stored. An error refuses it with 403, a timeout with 503. */
export type OnRegisterHook = (context: RegisterHookContext) => void | Promise<void>
/** The argument of the channel hooks: a channel or pattern, and the peer that wants to use it. */
export interface ChannelHookContext { channel: string, peerId: string, principal: Principal }
/** Runs before a message is published, over any interface. Any result other than `true` refuses it with 403, a timeout with 503. */
export type AuthorizePublishHook = (context: ChannelHookContext & { /** JSON text. */ data: string }) => boolean | Promise<boolean>
/** Runs before a connection is subscribed. Any result other than `true` refuses it with 403, a timeout with 503. */
export type AuthorizeSubscribeHook = (context: ChannelHookContext) => boolean | Promise<boolean>
/** Verifies a bearer token that this registry did not issue. `null` or an error means not authenticated. */
export type AuthenticateHook = (token: string) => Principal | null | Promise<Principal | null>
/**
 * Returns the form of a registration that the public tier shows, or `null` to hide the agent there. It runs when an agent
 * registers or changes. An error, a timeout or an invalid registration refuses the change with 503.
 */
export type PublicViewHook = (registration: AgentRegistration) => AgentRegistration | null | Promise<AgentRegistration | null>
