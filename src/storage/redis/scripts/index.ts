import { expire, extend, release, renew, report } from './liveness.js'
import { prelude } from './prelude.js'
import { bucketsDraw, bucketsGiveBack, stateGet, stateList, statePrelude, statePut, stateTake } from './state.js'
import { page, pulse } from './watching.js'
import { register, remove, setState, update } from './writing.js'

const agentScripts = { register, update, remove, setState, renew, report, expire, release, extend, pulse, page }
const stateScripts = { stateGet, statePut, stateTake, stateList, bucketsDraw, bucketsGiveBack }

export type AgentScript = keyof typeof agentScripts
export type StateScript = keyof typeof stateScripts

function define (prelude: string, scripts: Record<string, string>) {
  return Object.entries(scripts).map(([name, body]) => [name, prelude + body] as const)
}

/** Lua of every script; each takes one key, whose prefix is that of all keys it uses. */
export const scripts: ReadonlyMap<string, string> = new Map([...define(prelude, agentScripts), ...define(statePrelude, stateScripts)])
