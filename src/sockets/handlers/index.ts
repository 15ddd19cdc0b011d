import type { FrameHandler } from '../tiers.js'
import { auth } from './auth.js'
import { getDiscovery } from './get-discovery.js'
import { goodbye } from './goodbye.js'
import { ping } from './ping.js'
import { pong } from './pong.js'
import { status } from './status.js'
import { unwatch } from './unwatch.js'
import { watch } from './watch.js'

const common = { ping, pong, watch, unwatch }

/** The frames that each tier takes, by `type`. */
export const publicHandlers: ReadonlyMap<string, FrameHandler> = new Map(Object.entries({ ...common, get_discovery: getDiscovery }))
export const agentsHandlers: ReadonlyMap<string, FrameHandler> = new Map(Object.entries({ ...common, auth, status, goodbye }))
