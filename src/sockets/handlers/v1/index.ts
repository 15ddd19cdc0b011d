import type { FrameHandler } from '../../tiers.js'
import { ping } from '../ping.js'
import { publish } from './publish.js'
import { send } from './send.js'
import { subscribe } from './subscribe.js'
import { unsubscribe } from './unsubscribe.js'

/** The frames that `/v1` takes, by `type`. */
export const v1Handlers: ReadonlyMap<string, FrameHandler> = new Map(Object.entries({ subscribe, unsubscribe, publish, send, ping }))
