import type { ResolvedOptions } from '../options.js'
import type { TierName } from '../protocol/frames/catalogues.js'
import type { View } from '../registry/render.js'
import { channelHandlers } from './handlers/channels.js'
import { accountHandlers, commonHandlers, discoveryHandlers } from './handlers/common.js'
import { dashboardHandlers } from './handlers/dashboard.js'
import { handlersByType, type FrameHandler } from './handlers/define.js'
import { directHandlers } from './handlers/direct.js'
import { requestHandlers } from './handlers/requests.js'
import { v1Handlers } from './handlers/v1.js'
import type { TierHandshake } from './handshake.js'

/** A tier is data: who comes in, what they see, what they may send. */
export interface Tier {
  name: TierName
  options: ResolvedOptions['publicWs']
  /** Whether a connection must present a token. */
  requiresAuthentication: boolean
  /** How a connection authenticates; null if the tier requires no authentication. */
  handshake: TierHandshake | null
  /** Code with which a connection is closed that has not said so in time. */
  timeoutCode: number
  /** Whether a token may stand in the query of the upgrade. */
  takesQueryToken: boolean
  view: View
  handlers: ReadonlyMap<string, FrameHandler>
  /** Silence after which the server sends a protocol ping (ms). */
  protocolPingMs: number
}

/** The frames that clients of each tier may send, by `type`. */
export const tierHandlers: Readonly<Record<TierName, ReadonlyMap<string, FrameHandler>>> = {
  public: handlersByType({ ...commonHandlers, ...discoveryHandlers }),
  agents: handlersByType({ ...commonHandlers, ...channelHandlers, ...directHandlers, ...requestHandlers, ...accountHandlers }),
  dashboard: handlersByType({ ...commonHandlers, ...dashboardHandlers }),
  v1: handlersByType({ ...v1Handlers, ping: commonHandlers.ping })
}
